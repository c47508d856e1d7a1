// Loads a GGUF file with llama.cpp (through node-llama-cpp) for verify.py: node llamacpp.mjs NODE_FOLDER FILE TEXT TOKENS.
// Prints {"prompt": [ids], "tokens": [ids], "logprobs": [of these]} of the greedy continuation.
import {createRequire} from "node:module";
import {pathToFileURL} from "node:url";

const [, , root, file, text, count] = process.argv;
const entry = createRequire(root + "/package.json").resolve("node-llama-cpp");
const {getLlama} = await import(pathToFileURL(entry).href);
const llama = await getLlama({gpu: false, build: "never", maxThreads: 1, logLevel: "error"});
const model = await llama.loadModel({modelPath: file});
const context = await model.createContext({contextSize: 128, threads: 1});
const sequence = context.getSequence();
const prompt = model.tokenize(text);
if (model.tokens.shouldPrependBosToken && prompt[0] !== model.tokens.bos) prompt.unshift(model.tokens.bos);
if (model.tokens.shouldAppendEosToken) prompt.push(model.tokens.eos);
const tokens = [], logprobs = [];
for await (const {token, probabilities} of sequence.evaluateWithMetadata(prompt, {probabilities: true}, {temperature: 0, yieldEogToken: true})) {
    tokens.push(token);
    logprobs.push(Math.log(probabilities.get(token)));
    if (tokens.length === Number(count) || model.isEogToken(token)) break;
}
console.log(JSON.stringify({prompt, tokens, logprobs}));
process.exit(0);
