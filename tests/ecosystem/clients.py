"""OpenAI's own Python and JavaScript clients against temper serve: chat, streaming, completions, log-probabilities, embeddings, models, errors.

  python tests/ecosystem/clients.py TEMPER DECODER ENCODER [NODE_MODULES]

TEMPER is the binary, DECODER a .gguf file or folder, ENCODER a sentence encoder's folder. The Python that runs this needs the package openai; with
NODE_MODULES, a folder that holds the package of the same name, clients.mjs does the same in Node."""
import json, os, subprocess, sys

import openai

temper, decoder, encoder = sys.argv[1:4]
key = "a key"
server = subprocess.Popen([temper, "serve", f"writer={decoder}", f"reader={encoder}", "--addr", "127.0.0.1:0", "--api-key", key, "--context", "2048"],
                          stderr=subprocess.PIPE, text=True)
base = ""
for line in server.stderr:
    if "listening on " in line:
        base = line.split("listening on ")[1].strip() + "/v1"
        break
assert base, "the server did not start"


def refused(kind, f):
    try:
        f()
    except kind as e:
        return e
    raise AssertionError(f"expected {kind.__name__}")


try:
    c = openai.OpenAI(base_url=base, api_key=key, max_retries=0)
    assert {m.id for m in c.models.list()} == {"writer", "reader"}
    assert c.models.retrieve("writer").id == "writer"
    ask = dict(model="writer", messages=[{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": "Name a colour."}], max_tokens=12, temperature=0)
    whole = c.chat.completions.create(**ask, logprobs=True, top_logprobs=3)
    text = whole.choices[0].message.content
    assert whole.choices[0].finish_reason in ("stop", "length") and whole.usage.completion_tokens <= 12, whole
    lp = whole.choices[0].logprobs.content
    assert all(len(t.top_logprobs) == 3 and t.top_logprobs[0].logprob >= t.logprob - 1e-9 for t in lp), lp
    pieces, usage, finish = [], None, None
    for chunk in c.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}):
        if chunk.choices:
            pieces.append(chunk.choices[0].delta.content or "")
            finish = chunk.choices[0].finish_reason or finish
        usage = chunk.usage or usage
    assert "".join(pieces) == text, (pieces, text)
    assert finish == whole.choices[0].finish_reason and usage.completion_tokens == whole.usage.completion_tokens

    plain = c.completions.create(model="writer", prompt="The capital of France is", max_tokens=6, temperature=0)
    streamed = "".join(x.choices[0].text for x in c.completions.create(model="writer", prompt="The capital of France is", max_tokens=6, temperature=0, stream=True) if x.choices)
    assert plain.choices[0].text == streamed and streamed, (plain, streamed)
    echo = c.completions.create(model="writer", prompt="The capital of France is", max_tokens=0, echo=True, logprobs=1)
    scores = echo.choices[0].logprobs
    assert echo.choices[0].text == "The capital of France is" == "".join(scores.tokens), echo
    assert all(v is None or v <= 0 for v in scores.token_logprobs) and echo.usage.completion_tokens == 0

    schema = {"type": "object", "properties": {"name": {"type": "string", "pattern": "^[A-Z][a-z]{1,8}$"}, "age": {"type": "integer", "minimum": 1, "maximum": 99}},
              "required": ["name", "age"], "additionalProperties": False}
    person = json.loads(c.chat.completions.create(model="writer", messages=[{"role": "user", "content": "A person as JSON."}], max_tokens=60, temperature=1, seed=3,
        response_format={"type": "json_schema", "json_schema": {"name": "person", "schema": schema}}).choices[0].message.content)
    assert 1 <= person["age"] <= 99 and person["name"][0].isupper(), person

    vectors = c.embeddings.create(model="reader", input=["a cat", "a kitten", "an invoice"]).data
    dot = lambda a, b: sum(x * y for x, y in zip(a, b))
    near, far = dot(vectors[0].embedding, vectors[1].embedding), dot(vectors[0].embedding, vectors[2].embedding)
    assert near > far and abs(dot(vectors[0].embedding, vectors[0].embedding) - 1) < 1e-3, (near, far)
    assert len(c.embeddings.create(model="reader", input="x", dimensions=64, encoding_format="float").data[0].embedding) == 64

    refused(openai.NotFoundError, lambda: c.chat.completions.create(**{**ask, "model": "nobody"}))
    e = refused(openai.BadRequestError, lambda: c.chat.completions.create(**{**ask, "temperature": -1}))
    assert "temperature" in str(e)
    refused(openai.BadRequestError, lambda: c.completions.create(model="writer", prompt="word " * 5000, max_tokens=1))
    refused(openai.BadRequestError, lambda: c.embeddings.create(model="writer", input="x"))
    refused(openai.AuthenticationError, lambda: openai.OpenAI(base_url=base, api_key="another", max_retries=0).models.list())
    print("python: openai", openai.__version__, "done")
    if len(sys.argv) > 4:
        subprocess.run(["node", os.path.join(os.path.dirname(os.path.abspath(__file__)), "clients.mjs"), base, key, text, os.path.abspath(sys.argv[4])], check=True)
finally:
    server.terminate()
    server.stderr.read()
assert server.wait() == 0, "the server did not end well"
