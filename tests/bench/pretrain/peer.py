"""The PyTorch side of tests/bench/pretrain: the same network, weights, rows and optimiser, a step at a time.

One JSON object a line on standard input, one answer a line on standard output:
  {"model":DIR,"threads":N,"cpu":B,"wd":W,"beta2":B}    -> {"version":V}
  {"lr":R,"ids":[[...]],"targets":[[...]]}              -> {"loss":L,"ms":T}
"""
import json, os, sys, time
import torch, transformers

out = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)
q = json.loads(sys.stdin.readline())
torch.set_num_threads(q["threads"])
clock = time.process_time if q["cpu"] else time.perf_counter
config = transformers.AutoConfig.from_pretrained(q["model"])
masked = config.model_type == "bert"
kind = transformers.AutoModelForMaskedLM if masked else transformers.AutoModelForCausalLM
net = kind.from_pretrained(q["model"], dtype=torch.float32)
net.train()
for m in net.modules():
    if isinstance(m, torch.nn.Dropout):
        m.p = 0.0
config.attention_probs_dropout_prob = config.hidden_dropout_prob = 0.0
plain = lambda n: n.endswith("bias") or "norm" in n.lower()
named = [(n, p) for n, p in net.named_parameters() if p.requires_grad]
opt = torch.optim.AdamW([{"params": [p for n, p in named if not plain(n)], "weight_decay": q["wd"]},
                         {"params": [p for n, p in named if plain(n)], "weight_decay": 0.0}], lr=1e-3, betas=(0.9, q["beta2"]), eps=1e-8, fused=True)
print(json.dumps({"version": torch.__version__}), file=out)
for line in sys.stdin:
    q = json.loads(line)
    ids, targets = torch.tensor(q["ids"]), torch.tensor(q["targets"]).view(-1)
    t = clock()
    for g in opt.param_groups:
        g["lr"] = q["lr"]
    opt.zero_grad(set_to_none=True)
    if masked:  # logits of the hidden tokens only, as temper does
        at = (targets >= 0).nonzero().view(-1)
        hidden = net.bert(input_ids=ids).last_hidden_state
        logits, wanted = net.cls(hidden.view(-1, hidden.shape[-1])[at]), targets[at]
    else:
        logits, wanted = net(input_ids=ids).logits, targets
    loss = torch.nn.functional.cross_entropy(logits.view(-1, logits.shape[-1]), wanted)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    opt.step()
    value = loss.item()
    print(json.dumps({"loss": value, "ms": 1000 * (clock() - t)}), file=out)
