// Runs llama.cpp through node-llama-cpp for the Go program beside it: one JSON request a line on stdin, one answer a line on stdout.
import {createInterface} from "node:readline";
import {createRequire} from "node:module";
import {pathToFileURL} from "node:url";

const [, , root, model, threads, parallel] = process.argv;
const file = createRequire(root + "/package.json").resolve("node-llama-cpp");
const {getLlama} = await import(pathToFileURL(file).href);
const llama = await getLlama({gpu: false, build: "never", maxThreads: Number(threads), logLevel: "error"});
const began = performance.now();
const loaded = await llama.loadModel({modelPath: model, useMmap: true});
const context = await loaded.createContext({contextSize: 1024, batchSize: 512, sequences: Number(parallel), threads: Number(threads)});
const sequences = Array.from({length: Number(parallel)}, () => context.getSequence());
console.log(JSON.stringify({seconds: (performance.now() - began) / 1000}));

async function one(sequence, ids, n) {
    if (n === 0) {
        await sequence.evaluateWithoutGeneratingNewTokens(ids);
        return 0;
    }
    let first = 0, count = 0;
    const start = performance.now();
    for await (const _ of sequence.evaluate(ids, {temperature: 0, yieldEogToken: true})) {
        if (++count === 1) first = performance.now() - start;
        if (count === n) break;
    }
    return first / 1000;
}

for await (const line of createInterface({input: process.stdin})) {
    const {prompts, tokens} = JSON.parse(line);
    for (const s of sequences) await s.clearHistory();
    const start = performance.now();
    const firsts = await Promise.all(prompts.map((ids, i) => one(sequences[i], ids, tokens)));
    console.log(JSON.stringify({seconds: (performance.now() - start) / 1000, first: Math.max(...firsts)}));
}
process.exit(0);
