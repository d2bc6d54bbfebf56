#!/usr/bin/env bash
# Exports a trained model as GGUF in every type, and checks in llama.cpp (as the
# npm package node-llama-cpp ships it) that it goes on with the same greedy tokens
# wherever its two best logits lie 0.05 or more apart.
#
#	scripts/llama_check.sh MODEL_FOLDER PROMPTS_FILE [npm folder, default promptgen-npm in the temporary folder]
#
# Needs Go, node and npm; the package is installed into the npm folder.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
model=$(realpath "$1") prompts=$(realpath "$2") npm=${3:-${TMPDIR:-/tmp}/promptgen-npm}
mkdir -p "$npm"
[ -d "$npm/node_modules/node-llama-cpp" ] || npm install --prefix "$npm" --ignore-scripts --no-audit --no-fund node-llama-cpp@3.22.1
cp "$here/llama_check.mjs" "$npm/"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$here/.." && go build -o "$work/promptgen" ./cmd/promptgen)
bad=0
for dtype in fp32 fp16 bf16 q8_0 q4_0; do
	"$work/promptgen" export --quiet --model "$model" --format gguf --dtype $dtype --out "$work/$dtype.gguf" >/dev/null
	"$work/promptgen" generate --quiet --model "$work/$dtype.gguf" --prompts-file "$prompts" --greedy --samples 1 \
		--length "${LENGTH:-60}" --bos none --eos none --json >"$work/texts.json"
	node - "$work" "$model" <<'JS' >"$work/ids.json"
const {readFileSync} = require("node:fs");
const {execFileSync} = require("node:child_process");
const [work, model] = process.argv.slice(2);
const texts = JSON.parse(readFileSync(work + "/texts.json"));
const vocab = readFileSync(model + "/vocab.txt", "utf8").split("\n");
const banned = ["[PAD]", "[UNK]", "[MASK]"].map((t) => vocab.indexOf(t)).filter((id) => id >= 0);
const level = JSON.parse(readFileSync(model + "/promptgen.json")).level;
const cut = JSON.parse(execFileSync(work + "/promptgen", ["tokenize", "--quiet", "--json", "--vocab", model + "/vocab.txt",
    "--level", level, ...texts.flatMap((t) => ["--text", t.prompt])]));
console.log(JSON.stringify(texts.map((t, i) => ({prompt: cut[i].ids, tokens: t.samples[0].tokens, banned}))));
JS
	printf '%s ' "$dtype"
	node "$npm/llama_check.mjs" "$work/$dtype.gguf" "$work/ids.json" || bad=1
done
exit $bad
