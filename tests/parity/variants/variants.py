#!/usr/bin/env python3
"""Writes further fixtures of the kind "models": other shapes, heads and settings of every family than those of the shared fixtures.

    python tests/parity/variants/variants.py /path/of/variants [NAME…]      (needs torch, transformers, safetensors)
    TEMPER_VARIANTS=/path/of/variants go test ./tests/parity -run TestVariants -v

Weights are random and fixed by the seed; float32, no dropout, eager attention, one thread. The format is that of parity/models.
"""
import os
import sys

import torch
import transformers
from safetensors import safe_open
from safetensors.torch import save_file

SEED = 3
OUT = sys.argv[1]
ONLY = sys.argv[2:]


def draw_weights(model, g, std):
    """Weights large enough that every part shows, norms near one (near zero where a family adds one)."""
    near = 0.0 if model.config.model_type.startswith("gemma") else 1.0
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() > 1:
                p.copy_(torch.randn(p.shape, generator=g) * std)
            elif ("norm" in name.lower() or "ln_" in name) and name.endswith("weight"):
                p.copy_(near + 0.2 * torch.randn(p.shape, generator=g))
            else:
                p.copy_(0.1 * torch.randn(p.shape, generator=g))


def inputs(cfg, g, length, lengths):
    pad = cfg.pad_token_id if cfg.pad_token_id is not None else 0
    ids = torch.randint(0, cfg.vocab_size - 1, (len(lengths), length), generator=g)
    ids += (ids >= pad).long()  # never the pad id
    mask = (torch.arange(length)[None] < torch.tensor(lengths)[:, None]).long()
    ids = torch.where(mask == 1, ids, torch.full_like(ids, pad))
    x = {"input_ids": ids, "attention_mask": mask}
    if getattr(cfg, "type_vocab_size", 0) > 1:
        x["token_type_ids"] = torch.randint(0, cfg.type_vocab_size, ids.shape, generator=g) * mask
    first = pad + 1 if cfg.model_type in ("roberta", "xlm-roberta", "mpnet") else 0
    positions = torch.where(mask == 1, torch.arange(length)[None] + first, torch.full_like(ids, pad))
    return x, positions


def labels(cls, cfg, x, g):
    rows, length = x["input_ids"].shape
    pads = x["attention_mask"] == 0
    if "ForSequence" in cls:
        if cfg.problem_type == "multi_label_classification":
            return torch.randint(0, 2, (rows, cfg.num_labels), generator=g).float()
        if cfg.problem_type == "regression":
            return torch.randn(rows, generator=g)
        return torch.randint(0, cfg.num_labels, (rows,), generator=g)
    if "ForToken" in cls:
        y = torch.randint(0, cfg.num_labels, (rows, length), generator=g)
        return y.masked_fill(pads | (torch.rand(rows, length, generator=g) < 0.3), -100)
    if "Masked" in cls:
        return x["input_ids"].masked_fill(pads | (torch.rand(rows, length, generator=g) < 0.5), -100)
    if "CausalLM" in cls or "LMHead" in cls:
        return x["input_ids"].masked_fill(pads, -100)
    return None


def greedy(model, ids, steps=12):
    cur, past, tokens, logits = ids[None], None, [], []
    with torch.no_grad():
        for _ in range(steps):
            out = model(input_ids=cur, past_key_values=past, use_cache=True)
            past = out.past_key_values
            logits.append(out.logits[0, -1])
            tokens.append(out.logits[0, -1].argmax())
            cur = tokens[-1][None, None]
    return torch.stack(tokens), torch.stack(logits)


def write(name, cls, config, length=24, lengths=None, std=0.15, decode=True, **settings):
    if ONLY and not any(o in name for o in ONLY):
        return
    cfg = getattr(transformers, config)(**settings)
    cfg._attn_implementation = "eager"
    for key in list(vars(cfg)):
        if "drop" in key and isinstance(getattr(cfg, key), float):
            setattr(cfg, key, 0.0)
    torch.manual_seed(SEED)
    g = torch.Generator().manual_seed(SEED)
    model = getattr(transformers, cls)(cfg).eval().float()
    draw_weights(model, g, std)
    folder = os.path.join(OUT, name)
    os.makedirs(folder, exist_ok=True)
    model.config.architectures = [cls]
    model.save_pretrained(folder)

    x, positions = inputs(cfg, g, length, lengths or [length, length // 2 + 1, 3])
    want = dict(x, position_ids=positions)
    y = labels(cls, cfg, x, g)
    out = model(**x, output_hidden_states=True, **({} if y is None else {"labels": y}))
    for i, h in enumerate(out.hidden_states):
        want[f"hidden_states.layer_{i}"] = h
    if y is None:
        mask = x["attention_mask"][..., None].float()
        last = out.last_hidden_state
        mean = torch.nn.functional.normalize((last * mask).sum(1) / mask.sum(1), dim=-1)
        probe = torch.randn(mean.shape, generator=g)
        loss = (mean * probe).sum()
        want.update(last_hidden_state=last, mean_pooled=mean, probe=probe)
        if getattr(out, "pooler_output", None) is not None:
            loss = loss + (out.pooler_output * probe).sum()
            want["pooler_output"] = out.pooler_output
    else:
        loss = out.loss
        want.update(labels=y, logits=out.logits)
    want["loss"] = loss
    loss.backward()
    with safe_open(os.path.join(folder, "model.safetensors"), "pt") as f:
        saved = set(f.keys())
    grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    for n, grad in grads.items():
        if n not in saved and n == "lm_head.weight" and "embed_out.weight" in saved:
            n = "embed_out.weight"  # renamed when saving
        want["grad." + n] = grad
    if decode and ("CausalLM" in cls or "LMHead" in cls):
        for i, n in enumerate((9, 5)):
            prompt = x["input_ids"][i, :n]
            want[f"generate.{i}.prompt_ids"] = prompt
            want[f"generate.{i}.output_ids"], want[f"generate.{i}.step_logits"] = greedy(model, prompt)
    save_file({k: v.detach().contiguous().clone() for k, v in want.items()}, os.path.join(folder, "expected.safetensors"))
    print(name)


def encoders():
    b = dict(vocab_size=211, hidden_size=48, num_hidden_layers=3, num_attention_heads=3, intermediate_size=56, max_position_embeddings=80)
    write("bert-embed", "BertModel", "BertConfig", **b)
    write("bert-mlm-untied", "BertForMaskedLM", "BertConfig", tie_word_embeddings=False, **b)
    write("bert-seqcls-types", "BertForSequenceClassification", "BertConfig", type_vocab_size=5, num_labels=7, hidden_act="silu", **b)
    write("bert-seqcls-regression", "BertForSequenceClassification", "BertConfig", num_labels=1, problem_type="regression", **b)
    write("roberta-tokcls", "RobertaForTokenClassification", "RobertaConfig", num_labels=4, pad_token_id=1, type_vocab_size=1, **b)
    write("roberta-embed", "RobertaModel", "RobertaConfig", pad_token_id=5, type_vocab_size=1, **b)
    write("xlm-roberta-mlm", "XLMRobertaForMaskedLM", "XLMRobertaConfig", pad_token_id=1, type_vocab_size=1, **b)
    write("electra-mlm", "ElectraForMaskedLM", "ElectraConfig", embedding_size=20, **b)
    write("electra-tokcls", "ElectraForTokenClassification", "ElectraConfig", embedding_size=48, num_labels=3, **b)
    write("electra-embed", "ElectraModel", "ElectraConfig", embedding_size=20, **b)
    groups = dict(b, num_hidden_layers=4, embedding_size=20)
    write("albert-mlm", "AlbertForMaskedLM", "AlbertConfig", num_hidden_groups=2, inner_group_num=2, **groups)
    write("albert-tokcls", "AlbertForTokenClassification", "AlbertConfig", num_hidden_groups=3, **dict(groups, num_hidden_layers=5))
    write("albert-embed", "AlbertModel", "AlbertConfig", **groups)
    m = dict(b, max_position_embeddings=202, pad_token_id=1)
    write("mpnet-mlm", "MPNetForMaskedLM", "MPNetConfig", **m)
    write("mpnet-tokcls-long", "MPNetForTokenClassification", "MPNetConfig", length=190, **m)
    d = dict(b, relative_attention=True, position_buckets=12, norm_rel_ebd="layer_norm", share_att_key=True, pos_att_type=["p2c", "c2p"],
             position_biased_input=False)
    seq = ("DebertaV2ForSequenceClassification", "DebertaV2Config")
    write("deberta-v2-tokcls-long", "DebertaV2ForTokenClassification", "DebertaV2Config", num_labels=4, length=75, **d)
    write("deberta-v2-unshared", *seq, **dict(d, share_att_key=False))
    write("deberta-v2-c2p", *seq, **dict(d, pos_att_type="c2p"))
    write("deberta-v2-p2c", *seq, **dict(d, pos_att_type="p2c", norm_rel_ebd="none"))
    write("deberta-v2-plain", *seq, **dict(b, type_vocab_size=2))
    write("deberta-v2-nobuckets", *seq, **dict(d, position_buckets=-1, position_biased_input=True))
    write("deberta-v2-mlm", "DebertaV2ForMaskedLM", "DebertaV2Config", embedding_size=24, **d)
    write("deberta-v2-mlm-new", "DebertaV2ForMaskedLM", "DebertaV2Config", legacy=False, **d)
    write("deberta-v2-embed", "DebertaV2Model", "DebertaV2Config", **d)
    n = dict(b, pad_token_id=0)
    write("modernbert-tokcls", "ModernBertForTokenClassification", "ModernBertConfig", num_labels=3, norm_bias=True, attention_bias=True,
          mlp_bias=True, classifier_bias=True, local_attention=7, **n)
    write("modernbert-embed", "ModernBertModel", "ModernBertConfig", local_attention=6, global_attn_every_n_layers=3, **n)
    write("modernbert-mlm-untied", "ModernBertForMaskedLM", "ModernBertConfig", decoder_bias=False, classifier_activation="silu",
          tie_word_embeddings=False, **n)
    s = dict(vocab_size=211, dim=48, n_layers=3, n_heads=3, hidden_dim=60, max_position_embeddings=64)
    write("distilbert-tokcls", "DistilBertForTokenClassification", "DistilBertConfig", num_labels=3, activation="relu", **s)
    write("distilbert-embed", "DistilBertModel", "DistilBertConfig", **s)


def decoders():
    b = dict(vocab_size=211, hidden_size=48, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2, intermediate_size=56,
             max_position_embeddings=40, pad_token_id=0)
    ends = dict(bos_token_id=1, eos_token_id=2)

    def rope(kind, **more):
        return dict(rope_theta=10000.0, rope_type=kind, **more)

    llama = ("LlamaForCausalLM", "LlamaConfig")
    write("llama-linear", *llama, rope_parameters=rope("linear", factor=3.0), **b)
    # Frequencies of these depend on the longest row of the batch there, on each row here: rows of one length.
    write("llama-dynamic", *llama, rope_parameters=rope("dynamic", factor=3.0), lengths=[24] * 3, decode=False, **dict(b, max_position_embeddings=8))
    write("llama-yarn", *llama, rope_parameters=rope("yarn", factor=4.0, original_max_position_embeddings=16), **b)
    write("llama-yarn-mscale", *llama, rope_parameters=rope("yarn", factor=4.0, original_max_position_embeddings=256, mscale=0.7,
                                                              mscale_all_dim=1.3, beta_fast=20, truncate=False), **b)
    write("llama-llama3", *llama, rope_parameters=rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                                         original_max_position_embeddings=64), **b)
    write("llama-bias", *llama, attention_bias=True, mlp_bias=True, head_dim=10, tie_word_embeddings=True, **b)
    write("llama-tokcls", "LlamaForTokenClassification", "LlamaConfig", num_labels=4, **b)
    write("llama-embed", "LlamaModel", "LlamaConfig", **b)
    write("mistral-open", "MistralForCausalLM", "MistralConfig", sliding_window=None, head_dim=12, **b)
    write("mistral-seqcls", "MistralForSequenceClassification", "MistralConfig", sliding_window=3, num_labels=5, **b)
    slide = dict(use_sliding_window=True, sliding_window=4)
    write("qwen2-sliding", "Qwen2ForCausalLM", "Qwen2Config", max_window_layers=1, tie_word_embeddings=False, **slide, **b)
    write("qwen2-seqcls", "Qwen2ForSequenceClassification", "Qwen2Config", **b)
    write("qwen3-sliding", "Qwen3ForCausalLM", "Qwen3Config", max_window_layers=1, head_dim=14, attention_bias=True, **slide, **b)
    write("qwen3-seqcls", "Qwen3ForSequenceClassification", "Qwen3Config", head_dim=8, **b)
    write("smollm3-sliding", "SmolLM3ForCausalLM", "SmolLM3Config", no_rope_layer_interval=2, **slide, **ends, **b)
    write("smollm3-seqcls", "SmolLM3ForSequenceClassification", "SmolLM3Config", attention_bias=True, mlp_bias=True, **ends, **b)
    gemma = dict(b, head_dim=10, sliding_window=4, layer_types=["full_attention", "sliding_attention", "sliding_attention"], **ends)
    write("gemma3-caps", "Gemma3ForCausalLM", "Gemma3TextConfig", query_pre_attn_scalar=7, attn_logit_softcapping=20.0, final_logit_softcapping=15.0,
          rope_parameters=dict(full_attention=dict(rope("linear", factor=4.0), rope_theta=50000.0), sliding_attention=dict(rope("default"), rope_theta=3000.0)),
          **gemma)
    write("gemma3-both-ways", "Gemma3TextModel", "Gemma3TextConfig", use_bidirectional_attention=True, **dict(gemma, sliding_window=8))
    write("gemma3-seqcls", "Gemma3TextForSequenceClassification", "Gemma3TextConfig", **gemma)
    phi = ("Phi3ForCausalLM", "Phi3Config")
    factors = dict(short_factor=[1.0, 1.1, 1.3, 2.0], long_factor=[1.5, 2.0, 3.0, 9.0])
    long = dict(b, max_position_embeddings=256, **ends)
    write("phi3-longrope-short", *phi, original_max_position_embeddings=64, rope_parameters=rope("longrope", **factors), **long)
    write("phi3-longrope-long", *phi, original_max_position_embeddings=16, rope_parameters=rope("longrope", **factors), lengths=[24, 22, 20],
          decode=False, **long)
    write("phi3-partial", *phi, sliding_window=6, rope_parameters=rope("default", partial_rotary_factor=0.5), **ends, **b)
    write("phi3-seqcls", "Phi3ForSequenceClassification", "Phi3Config", **ends, **b)
    g = dict(vocab_size=211, n_embd=48, n_layer=3, n_head=3, n_positions=64)
    write("gpt2-inverse", "GPT2LMHeadModel", "GPT2Config", scale_attn_by_inverse_layer_idx=True, n_inner=70, **g)
    write("gpt2-unscaled", "GPT2LMHeadModel", "GPT2Config", scale_attn_weights=False, tie_word_embeddings=False, activation_function="relu", std=0.05, **g)
    write("gpt2-tokcls", "GPT2ForTokenClassification", "GPT2Config", num_labels=3, **g)
    write("gpt2-embed", "GPT2Model", "GPT2Config", **g)
    x = dict(vocab_size=211, hidden_size=48, num_hidden_layers=3, num_attention_heads=3, intermediate_size=56, max_position_embeddings=64, pad_token_id=0)
    write("gpt_neox-serial", "GPTNeoXForCausalLM", "GPTNeoXConfig", use_parallel_residual=False, attention_bias=False, tie_word_embeddings=True, **x)
    write("gpt_neox-seqcls", "GPTNeoXForSequenceClassification", "GPTNeoXConfig", num_labels=3, **x)
    write("gpt_neox-tokcls", "GPTNeoXForTokenClassification", "GPTNeoXConfig", num_labels=3, **x)
    write("gpt_neox-linear", "GPTNeoXForCausalLM", "GPTNeoXConfig", rope_parameters=dict(rope("linear", factor=2.0), rope_theta=5000.0,
                                                                                           partial_rotary_factor=1.0), **x)


torch.set_num_threads(1)
encoders()
decoders()
