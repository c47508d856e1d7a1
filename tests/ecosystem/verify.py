"""Loads what temper writes with the ecosystem's own libraries and compares the numbers: transformers, peft, tokenizers, llama.cpp.

  python tests/ecosystem/verify.py TEMPER_BINARY PARITY_FOLDER [NODE_FOLDER] [DECODER.gguf]

Needs torch, transformers and peft, and for llama.cpp a folder with node_modules/node-llama-cpp. With a decoder's GGUF file the types that
`temper quantize` writes are checked on it too. Prints a line per check and ends with 1 if any fails."""
import json, math, pathlib, subprocess, sys, tempfile
import torch, transformers, peft

temper, parity = sys.argv[1], pathlib.Path(sys.argv[2])
node = next((a for a in sys.argv[3:] if (pathlib.Path(a) / "node_modules").exists()), None)
decoder = next((a for a in sys.argv[3:] if a.endswith(".gguf") and pathlib.Path(a).exists()), None)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
tmp = pathlib.Path(tempfile.mkdtemp(prefix="temper-ecosystem-"))
texts = ["one two three", "a longer text, with more words in it than the first", "short"]
failed = 0


def run(*args):
    p = subprocess.run([temper, *map(str, args), "--json", "-q"], capture_output=True, text=True)
    if p.returncode:
        raise RuntimeError(p.stderr.strip())
    return json.loads(p.stdout)


def scores(folder):
    return [r["scores"] for r in run("classify", folder, *texts)["results"]]


def reference(model, tok):
    model.eval()
    out = []
    with torch.inference_mode():
        for t in texts:
            z = model(**tok(t, return_tensors="pt", truncation=True)).logits[0].softmax(-1)
            out.append({model.config.id2label[i]: float(p) for i, p in enumerate(z)})
    return out


def check(name, got, want, tolerance=1e-4):
    global failed
    worst = max(abs(g[k] - w[k]) for g, w in zip(got, want) for k in w)
    ok = worst < tolerance
    failed += not ok
    print(f"{'ok  ' if ok else 'FAIL'} {name}: largest difference {worst:.1e}")


data = tmp / "data.tsv"
data.write_text("label\ttext\n" + "".join(f"{'up' if i % 2 else 'down'}\ttext number {i} about {'rise' if i % 2 else 'fall'}\n" for i in range(24)))
methods = subprocess.run([temper, "tune", "--help"], capture_output=True, text=True).stdout
known = ["full", "head", "lora", "rslora", "dora", "ia3", "adalora", "vera", "oft", "boft", "ln-tuning", "prefix", "prompt", "p-tuning"]
for method in [m for m in known if m in methods]:
    base = parity / "models" / "bert-seqcls"
    out = tmp / method
    try:
        run("tune", base, "--data", data, "--method", method, "--epochs", 2, "--lr", "0.01" if method not in ("full", "head") else "0.001", "-o", out)
        got = scores(out)
        adapter = out if (out / "adapter_config.json").exists() else out / "adapter"
        if (out / "model.safetensors").exists():
            tok = transformers.AutoTokenizer.from_pretrained(out)
            check(f"{method}: folder in transformers", got, reference(transformers.AutoModelForSequenceClassification.from_pretrained(out), tok))
        if (adapter / "adapter_config.json").exists():
            tok = transformers.AutoTokenizer.from_pretrained(base)
            labels = json.loads((adapter / "config.json").read_text())["id2label"] if (adapter / "config.json").exists() else {0: "down", 1: "up"}
            net = transformers.AutoModelForSequenceClassification.from_pretrained(base, num_labels=2, ignore_mismatched_sizes=True,
                id2label={int(k): v for k, v in labels.items()}, label2id={v: int(k) for k, v in labels.items()})
            check(f"{method}: adapter in peft", got, reference(peft.PeftModel.from_pretrained(net, adapter), tok))
    except Exception as e:  # noqa: BLE001 - every method gets its line
        failed += 1
        print(f"FAIL {method}: {type(e).__name__}: {str(e)[:300]}")

for folder in sorted((parity / "models").glob("*-seqcls*")):
    try:
        out = tmp / folder.name
        run("export", folder, "--to", "hf", "-o", out)
        tok = transformers.AutoTokenizer.from_pretrained(out)
        net = transformers.AutoModelForSequenceClassification.from_pretrained(out)
        if net.config.problem_type in ("regression", "multi_label_classification") or len(net.config.id2label) < 2:
            continue
        check(f"{folder.name}: exported folder in transformers", scores(out), reference(net, tok))
    except Exception as e:  # noqa: BLE001
        failed += 1
        print(f"FAIL {folder.name}: {type(e).__name__}: {str(e)[:300]}")


def export(folder, to="hf", suffix=""):
    out = tmp / (folder.name + suffix)
    run("export", folder, "--to", to, "-o", out)
    return out


def attempt(name, f):
    global failed
    try:
        f()
    except Exception as e:  # noqa: BLE001 - every check gets its line
        failed += 1
        print(f"FAIL {name}: {type(e).__name__}: {str(e)[:300]}")


def masked(folder):
    out = export(folder)
    tok = transformers.AutoTokenizer.from_pretrained(out)
    net = transformers.AutoModelForMaskedLM.from_pretrained(out).eval()
    text = f"one {tok.mask_token} two"
    ids = tok(text, return_tensors="pt")
    with torch.inference_mode():
        p = net(**ids).logits[0, ids["input_ids"][0].tolist().index(tok.mask_token_id)].softmax(-1)
    top = p.topk(5)
    got = [{str(i): r["score"] for i, r in enumerate(run("fill", out, text)["results"])}]
    check(f"{folder.name}: exported folder in transformers", got, [{str(i): float(v) for i, v in enumerate(top.values)}])


def embedded(folder):
    out = export(folder)
    tok = transformers.AutoTokenizer.from_pretrained(out)
    net = transformers.AutoModel.from_pretrained(out).eval()
    want = []
    with torch.inference_mode():
        for t in texts:
            v = net(**tok(t, return_tensors="pt")).last_hidden_state[0].mean(0)
            want.append(dict(enumerate((v / v.norm()).tolist())))
    check(f"{folder.name}: exported folder in transformers", [dict(enumerate(e)) for e in run("embed", out, *texts)["embeddings"]], want)


def tagged(folder):
    out = export(folder)
    tok = transformers.AutoTokenizer.from_pretrained(out)
    net = transformers.AutoModelForTokenClassification.from_pretrained(out).eval()
    ids = tok(texts[1], return_tensors="pt")
    with torch.inference_mode():
        p = net(**ids).logits[0].softmax(-1)
    special = set(tok.all_special_ids)
    want = [{net.config.id2label[int(q.argmax())]: float(q.max())} for i, q in zip(ids["input_ids"][0].tolist(), p) if i not in special]
    got = [{t["label"]: t["score"]} for t in run("classify", out, texts[1])["results"][0]["tokens"]]
    assert [list(g) for g in got] == [list(w) for w in want], "other labels"
    check(f"{folder.name}: exported folder in transformers", got, want)


prompt = "hello there friend"


def written(path, text=prompt, n=8, cache="f16"):
    """temper's greedy continuation: ids, their log-probabilities, and how far the runner-up lay behind."""
    steps = run("generate", path, "--prompt", text, "--max-tokens", n, "--temperature", 0, "--logprobs", 2, "--cache-type", cache)["logprobs"]
    return [t["id"] for t in steps], [t["logprob"] for t in steps], [t["top"][0]["logprob"] - t["top"][1]["logprob"] for t in steps]


def same(name, mine, ids, logprobs, tolerance):
    """Equal tokens up to a near tie, and equal log-probabilities as far as the tokens agree."""
    global failed
    worst, at = 0.0, len(ids)
    for i, (a, b) in enumerate(zip(mine[0], ids)):
        if a != b:
            at = i
            break
        worst = max(worst, abs(mine[1][i] - logprobs[i]))
    ok = len(ids) > 0 and worst < tolerance and (at == len(ids) or at > 0 and mine[2][at] < 2 * tolerance)
    failed += not ok
    print(f"{'ok  ' if ok else 'FAIL'} {name}: {at} of {len(ids)} greedy tokens, largest difference of log-probabilities {worst:.1e}")


def continued(folder):
    out = export(folder)
    tok = transformers.AutoTokenizer.from_pretrained(out)
    net = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    ids = torch.tensor([[t for t in run("tokenize", out, prompt)["encodings"][0]["ids"]]])
    assert ids[0].tolist() == tok(prompt)["input_ids"], "other prompt tokens"
    got, logprobs = [], []
    with torch.inference_mode():
        for _ in range(8):
            p = net(input_ids=ids).logits[0, -1].log_softmax(-1)
            got.append(int(p.argmax()))
            logprobs.append(float(p.max()))
            ids = torch.cat([ids, torch.tensor([[got[-1]]])], 1)
            if got[-1] == net.config.eos_token_id:
                break
    same(f"{folder.name}: exported folder in transformers", written(out, cache="f32"), got, logprobs, 1e-4)


def llamacpp(name, path, text=prompt, n=8, tolerance=0.02):
    # llama.cpp keeps its cache in half precision, hence the tolerance.
    script = pathlib.Path(__file__).with_name("llamacpp.mjs")
    p = subprocess.run(["node", script, node, path, text, str(n)], capture_output=True, text=True)
    assert p.returncode == 0 and p.stdout, p.stderr.strip()[-300:]
    want = json.loads(p.stdout.strip().splitlines()[-1])
    same(f"{name}: GGUF in llama.cpp", written(path, text, n), want["tokens"], want["logprobs"], tolerance)


def converted(folder):
    config = json.loads((folder / "config.json").read_text())
    rope = config.get("no_rope_layers")
    if rope and any(bool(r) != bool((i + 1) % 4) for i, r in enumerate(rope)):
        print(f"     {folder.name}: llama.cpp knows no such pattern of layers without rotation, and temper refuses to write it")
        return
    # llama.cpp reads Mistral as Llama, without its window: stay inside it.
    inside = config["model_type"] == "mistral"
    llamacpp(folder.name, export(folder, "gguf", ".gguf"), "the" if inside else prompt, 1 if inside else 8)


def quantized(kind):
    out = tmp / f"{kind}.gguf"
    run("quantize", decoder, "--type", kind, "--requantize", "-o", out)
    # Activations are rounded by each engine in its own way, which moves log-probabilities by some hundredths.
    llamacpp(f"{pathlib.Path(decoder).name} as {kind}", out, "The capital of France is", 12, 0.25)
    out.unlink()


for kind, f in (("mlm", masked), ("embed", embedded), ("tokcls", tagged), ("causal", continued)):
    for folder in sorted((parity / "models").glob(f"*-{kind}")):
        attempt(folder.name, lambda: f(folder))
if node:
    for folder in sorted((parity / "models").glob("*-causal")):
        attempt(f"{folder.name} in llama.cpp", lambda: converted(folder))
    if decoder:
        for kind in ("q8_0", "q4_k_m", "q5_k_m", "q4_0", "iq4_xs"):
            attempt(kind, lambda: quantized(kind))
else:
    print("     llama.cpp: not checked, no folder with node_modules/node-llama-cpp was given")
print(f"{failed} failed" if failed else "all agree")
sys.exit(failed > 0)
