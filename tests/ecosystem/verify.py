"""Loads what temper writes with the ecosystem's own libraries and compares the numbers: transformers, peft, tokenizers.

  python tests/ecosystem/verify.py TEMPER_BINARY PARITY_FOLDER

Needs torch, transformers and peft. Prints a line per check and ends with 1 if any fails."""
import json, pathlib, subprocess, sys, tempfile
import torch, transformers, peft

temper, parity = sys.argv[1], pathlib.Path(sys.argv[2])
transformers.logging.set_verbosity_error()
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
print(f"{failed} failed" if failed else "all agree")
sys.exit(failed > 0)
