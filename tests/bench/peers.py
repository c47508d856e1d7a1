"""Runs the peers for tests/bench: ONNX Runtime and PyTorch (+ peft) on a Hugging Face BERT folder.

Protocol: one JSON object a line on standard input, one answer a line on standard output.
  {"op":"load","model":DIR,"cache":DIR,"threads":N,"cpu":B}   -> {"versions":{...}}
  {"op":"infer","engine":E,"ids":[[...]],"repeat":R}          -> {"ms":[...]}      E: ort_f32 ort_int8 torch_f32 torch_bf16 torch_int8
  {"op":"texts","engine":E,"batches":[[[ids]]]}               -> {"ms":total}      each batch padded to its longest
  {"op":"train","mode":M,"ids":[[...]],"lengths":[...],"repeat":R} -> {"ms":[...]} M: full lora head fgm, with _bf16
  {"op":"begin","model":DIR,"threads":N}                      -> {}                in place of load, for training alone
  {"op":"peak"}                                               -> {"kib":N}         peak memory of this process
  {"op":"embed","ids":[[...]]}                                -> {"hidden":[[...]]} mean-pooled, for a check that both do the same work
"""
import json, os, sys, time
import numpy as np, torch, transformers

out = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)  # libraries that print do not disturb the protocol
state = {}
clock = time.perf_counter


def export(model_dir, cache):
    """The encoder as ONNX, f32 and dynamically quantized int8 (per channel)."""
    import onnx  # noqa: F401
    from onnxruntime.quantization import quantize_dynamic, QuantType
    f32, i8 = os.path.join(cache, "bench-f32.onnx"), os.path.join(cache, "bench-int8.onnx")
    if not os.path.exists(f32):
        class Wrap(torch.nn.Module):
            def __init__(self, m):
                super().__init__()
                self.m = m

            def forward(self, input_ids, attention_mask, token_type_ids):
                return self.m(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids).last_hidden_state
        w = Wrap(transformers.AutoModel.from_pretrained(model_dir, dtype=torch.float32, attn_implementation="eager")).eval()
        x = torch.ones(2, 8, dtype=torch.long)
        names = ["input_ids", "attention_mask", "token_type_ids"]
        with torch.no_grad():
            torch.onnx.export(w, (x, x, x * 0), f32 + ".tmp", input_names=names, output_names=["last_hidden_state"], opset_version=17,
                              dynamic_axes={n: {0: "b", 1: "s"} for n in names + ["last_hidden_state"]}, dynamo=False)
        os.rename(f32 + ".tmp", f32)
    if not os.path.exists(i8):
        quantize_dynamic(f32, i8 + ".tmp", per_channel=True, weight_type=QuantType.QInt8)
        os.rename(i8 + ".tmp", i8)
    return f32, i8


def load(q):
    global clock
    import onnxruntime as ort
    clock = time.process_time if q.get("cpu") else time.perf_counter
    state.clear()
    torch.set_num_threads(q["threads"])
    state.update(q)
    f32, i8 = export(q["model"], q["cache"])
    so = ort.SessionOptions()
    so.intra_op_num_threads, so.inter_op_num_threads = q["threads"], 1
    so.log_severity_level = 3
    state["ort"] = {}
    state["open"] = {"ort_f32": lambda: ort.InferenceSession(f32, so, providers=["CPUExecutionProvider"]),
                     "ort_int8": lambda: ort.InferenceSession(i8, so, providers=["CPUExecutionProvider"])}
    return {"versions": {"torch": torch.__version__, "onnxruntime": ort.__version__, "transformers": transformers.__version__}}


def engine(name):
    if name not in state["ort"]:
        if name.startswith("ort"):
            s = state["open"][name]()
            state["ort"][name] = lambda a, m: s.run(None, {"input_ids": a, "attention_mask": m, "token_type_ids": np.zeros_like(a)})[0]
        else:
            dt = torch.bfloat16 if name == "torch_bf16" else torch.float32
            net = transformers.AutoModel.from_pretrained(state["model"], dtype=dt).eval()
            if name == "torch_int8":
                net = torch.ao.quantization.quantize_dynamic(net, {torch.nn.Linear}, dtype=torch.qint8)

            def call(a, m):
                with torch.inference_mode():
                    return net(input_ids=torch.from_numpy(a), attention_mask=torch.from_numpy(m)).last_hidden_state.float().numpy()
            state["ort"][name] = call
    return state["ort"][name]


def pad(rows):
    n = max(map(len, rows))
    a, m = np.zeros((len(rows), n), np.int64), np.zeros((len(rows), n), np.int64)
    for i, r in enumerate(rows):
        a[i, :len(r)], m[i, :len(r)] = r, 1
    return a, m


def infer(q):
    f = engine(q["engine"])
    a, m = pad(q["ids"])
    ms = []
    for _ in range(q["repeat"]):
        t = clock()
        f(a, m)
        ms.append(1000 * (clock() - t))
    return {"ms": ms}


def texts(q):
    f = engine(q["engine"])
    total = 0.0
    for rows in q["batches"]:
        t = clock()
        f(*pad(rows))
        total += clock() - t
    return {"ms": 1000 * total}


def trainer(mode):
    if ("t", mode) in state:
        return state[("t", mode)]
    base = mode.removesuffix("_bf16")
    torch.manual_seed(0)
    net = transformers.AutoModelForSequenceClassification.from_pretrained(state["model"], num_labels=2, dtype=torch.float32)
    if base == "lora":
        import peft
        net = peft.get_peft_model(net, peft.LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, lora_dropout=0.0, target_modules=["query", "value"]))
    if base == "head":
        for p in net.bert.parameters():
            p.requires_grad = False
    net.train()
    params = [p for p in net.parameters() if p.requires_grad]
    opt = torch.optim.AdamW(params, lr=2e-5, weight_decay=0.01, fused=True)
    state[("t", mode)] = (net, opt, params)
    return state[("t", mode)]


def train(q):
    mode = q["mode"]
    net, opt, params = trainer(mode)
    ms = []
    for i in range(q["repeat"]):
        t = clock()
        for rows in q["batches"]:
            a, m = (torch.from_numpy(x) for x in pad(rows))
            y = torch.arange(len(rows)) % 2
            opt.zero_grad(set_to_none=True)

            def loss():
                with torch.autocast("cpu", torch.bfloat16, enabled=mode.endswith("_bf16")):
                    return net(input_ids=a, attention_mask=m, labels=y).loss
            loss().backward()
            if mode.startswith("fgm"):
                emb = net.get_input_embeddings().weight
                r = emb.grad / (emb.grad.norm() + 1e-12)
                with torch.no_grad():
                    emb += r
                loss().backward()
                with torch.no_grad():
                    emb -= r
            torch.nn.utils.clip_grad_norm_(params, 1.0)
            opt.step()
        ms.append(1000 * (clock() - t))
    return {"ms": ms}


def embed(q):
    a, m = pad(q["ids"])
    h = engine("torch_f32")(a, m)
    e = (h * m[..., None]).sum(1) / m.sum(1, keepdims=True)
    return {"hidden": e.tolist()}


def begin(q):
    torch.set_num_threads(q["threads"])
    state.update(q)
    return {}


def peak(q):
    with open("/proc/self/status") as f:
        return {"kib": next(int(line.split()[1]) for line in f if line.startswith("VmHWM:"))}


ops = {"begin": begin, "peak": peak, "load": load, "infer": infer, "texts": texts, "train": train, "embed": embed}
for line in sys.stdin:
    q = json.loads(line)
    try:
        answer = ops[q["op"]](q)
    except Exception as e:  # noqa: BLE001 - the driver reports it
        answer = {"error": f"{type(e).__name__}: {e}"}
    out.write(json.dumps(answer) + "\n")
