// Compares the ids that Hugging Face's tokenizer makes by a model folder's
// tokenizer.json with promptgen's, line by line of text files.
//
//	node tokenizer_check.mjs PROMPTGEN MODEL_FOLDER TEXT...
//
// Prints the lines that differ, at most ten, and exits with 1 where any does.
import {readFileSync} from "node:fs";
import {execFileSync} from "node:child_process";
import {Tokenizer} from "@huggingface/tokenizers";

const [promptgen, model, ...files] = process.argv.slice(2);
const read = (name) => JSON.parse(readFileSync(`${model}/${name}`, "utf8"));
const theirs = new Tokenizer(read("tokenizer.json"), read("tokenizer_config.json"));
const {level} = read("promptgen.json");
const ours = (lines) => JSON.parse(execFileSync(promptgen, ["tokenize", "--quiet", "--json", "--level", level,
    "--vocab", `${model}/vocab.txt`, ...lines.flatMap((l) => ["--text", l])], {maxBuffer: 1 << 30}));

let lines = 0, ids = 0, differ = 0;
for (const file of files) {
    const all = readFileSync(file, "utf8").split("\n").filter((l) => l.trim() !== "");
    for (let at = 0; at < all.length; at += 500) {
        ours(all.slice(at, at + 500)).forEach((cut, i) => {
            const text = all[at + i];
            const got = theirs.encode(text).ids;
            lines++;
            ids += cut.ids.length;
            if (got.length === cut.ids.length && got.every((id, k) => id === cut.ids[k])) return;
            const k = cut.ids.findIndex((id, k) => id !== got[k]);
            if (differ++ < 10) console.log(`${JSON.stringify(text.slice(0, 60))}: token ${k} is ${cut.ids[k]} here and ${got[k]} there`);
        });
    }
}
console.log(JSON.stringify({level, lines, ids, differ}));
process.exit(differ > 0 || lines === 0 ? 1 : 0);
