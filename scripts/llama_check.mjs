// Loads a GGUF file in llama.cpp and compares its greedy choice at every place
// of the texts that promptgen wrote greedily with the same file.
//
//	node llama_check.mjs FILE.gguf TEXTS.json
//
// TEXTS.json: [{prompt: [ids], tokens: [ids], banned: [ids]}]. llama.cpp is fed
// the token ids of a text and asked for its logits behind each. Where its two
// best differ by 0.05 or more, the best must be promptgen's token; ids that
// promptgen never writes are left out. Exits with 1 where one is not.
import {readFileSync} from "node:fs";
import {getLlama, LlamaLogLevel} from "node-llama-cpp";

const margin = 0.05;
const [file, texts] = process.argv.slice(2);
const llama = await getLlama({gpu: false, build: "never", logLevel: LlamaLogLevel.error});
const model = await llama.loadModel({modelPath: file});
const kv = {experimentalKvCacheKeyType: "F32", experimentalKvCacheValueType: "F32", flashAttention: false};
const context = await model.createContext({contextSize: model.trainContextSize, sequences: 1, ...kv});
const sequence = context.getSequence();

let equal = 0, close = 0, differ = 0, widest = 0;
for (const {prompt, tokens, banned} of JSON.parse(readFileSync(texts))) {
    await sequence.clearHistory();
    const fed = [...prompt, ...tokens.slice(0, -1)];
    const asked = fed.map((id, i) => i < prompt.length - 1 ? id : [id, {generateNext: {logits: true}}]);
    const answers = await sequence.controlledEvaluate(asked);
    tokens.forEach((want, i) => {
        const logits = [...answers[prompt.length - 1 + i].next.logits].filter(([id]) => !banned.includes(id));
        const [[best, first], [, second]] = logits;
        if (best === want) equal++;
        else if (first - second < margin) close++;
        else {
            differ++;
            widest = Math.max(widest, first - second);
        }
    });
}
console.log(JSON.stringify({equal, within_margin: close, differ, widest_gap: widest}));
process.exit(differ > 0 || equal === 0 ? 1 : 0);
