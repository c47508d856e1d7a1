// OpenAI's JavaScript client against a server that clients.py has started: node clients.mjs BASE_URL KEY ANSWER NODE_MODULES
import assert from "node:assert/strict";
import {readFileSync} from "node:fs";
import {createRequire} from "node:module";

const [, , baseURL, apiKey, answer, modules] = process.argv;
const {default: OpenAI} = createRequire(modules + "/x.js")("openai");
const c = new OpenAI({baseURL, apiKey, maxRetries: 0});

const ids = [];
for await (const m of c.models.list()) ids.push(m.id);
assert.deepEqual(ids.sort(), ["reader", "writer"]);
const ask = {model: "writer", messages: [{role: "system", content: "Answer briefly."}, {role: "user", content: "Name a colour."}], max_tokens: 12, temperature: 0};
const whole = await c.chat.completions.create(ask);
assert.equal(whole.choices[0].message.content, answer);
let streamed = "", usage;
for await (const chunk of await c.chat.completions.create({...ask, stream: true, stream_options: {include_usage: true}})) {
    streamed += chunk.choices[0]?.delta.content ?? "";
    usage = chunk.usage ?? usage;
}
assert.equal(streamed, answer);
assert.equal(usage.completion_tokens, whole.usage.completion_tokens);
const text = await c.completions.create({model: "writer", prompt: "The capital of France is", max_tokens: 6, temperature: 0, logprobs: 2});
assert.ok(text.choices[0].text.length > 0);
assert.equal(Object.keys(text.choices[0].logprobs.top_logprobs[0]).length, 2);
// Without a format the client asks for base64 and unpacks it.
const v = await c.embeddings.create({model: "reader", input: ["a cat", "a kitten"]});
assert.ok(Math.abs(v.data[0].embedding.reduce((s, x) => s + x * x, 0) - 1) < 1e-3);
await assert.rejects(c.chat.completions.create({...ask, model: "nobody"}), OpenAI.NotFoundError);
await assert.rejects(c.chat.completions.create({...ask, top_p: 7}), OpenAI.BadRequestError);
await assert.rejects(new OpenAI({baseURL, apiKey: "another", maxRetries: 0}).models.list(), OpenAI.AuthenticationError);
// A stream that its reader leaves.
const left = await c.chat.completions.create({...ask, max_tokens: 500, stream: true});
for await (const _ of left) break;
assert.ok((await c.models.list()).data.length === 2);
console.log("javascript: openai", JSON.parse(readFileSync(modules + "/openai/package.json", "utf8")).version, "done");
