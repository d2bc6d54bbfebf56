#!/usr/bin/env bash
# The whole loop on real text: vocabulary, tokens, training, evaluation,
# generation and the HTTP service, one after the other, on the first part of a
# corpus; the loss on text held out must end at least 0.3 nat below the unigram
# entropy of its tokens.
#
#   scripts/loop_medqa.sh [CORPUS [HELDOUT [DIR]]]
#
# CORPUS  text, documents separated by blank lines (default: the medical
#         questions and answers beside the checkout); its first 300 KB are used
# HELDOUT text for the evaluation (default: the held-out part beside the
#         default corpus; else a part is split off CORPUS)
# DIR     where everything is written (default: a new temporary folder)
# LEVEL is what a token is: char (default: 300 KB are few for words) or word;
# EPOCHS and PORT may be set too.
# BIN names a binary that is built already.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
default=$root/../shared/corpora/medqa.train.txt
corpus=${1:-$default}
heldout=${2:-}
[ -n "$heldout" ] || [ "$corpus" != "$default" ] || heldout=${default/train/heldout}
dir=${3:-$(mktemp -d)}
level=${LEVEL:-char}
port=${PORT:-5905}
[ -f "$corpus" ] || { echo "$corpus: no such corpus; name one" >&2; exit 2; }
mkdir -p "$dir"

bin=${BIN:-$dir/promptgen}
[ -n "${BIN:-}" ] || (cd "$root" && go build -o "$bin" ./cmd/promptgen)

# The number that field $1 has in the JSON of $2.
field() { sed -n "s/^ *\"$1\": *\([-0-9.e+]*\),\{0,1\}$/\1/p" "$2" | head -n 1; }
step() { printf '\n== %s\n' "$*"; }

# The first 300 KB, up to the last whole document.
head -c 300000 "$corpus" | awk 'BEGIN { RS = ""; ORS = "\n\n" } { if (NR > 1) print last; last = $0 }' > "$dir/corpus.txt"

cat > "$dir/config.json" <<'JSON'
{"n_ctx": 128, "n_positions": 128, "n_embd": 128, "n_head": 4, "n_layer": 2, "dropout": 0.1,
 "initializer_range": 0.02, "layer_norm_epsilon": 1e-05}
JSON

step vocab
"$bin" vocab --corpus "$dir/corpus.txt" --out "$dir/vocab/vocab_user.txt" --level "$level"

step tokenize
split=0
[ -n "$heldout" ] || split=0.1
"$bin" tokenize --corpus "$dir/corpus.txt" --vocab "$dir/vocab/vocab_user.txt" --level "$level" --out "$dir/tokenized" --val-fraction $split

step train
"$bin" train --config "$dir/config.json" --data "$dir/tokenized" --out "$dir/model" \
	--epochs "${EPOCHS:-6}" --batch-size 8 --lr 1e-3 --seed 1 --json | tee "$dir/train.json"

step eval
if [ -n "$heldout" ]; then
	"$bin" eval --model "$dir/model/final_model" --corpus "$heldout" --json | tee "$dir/eval.json"
else
	"$bin" eval --model "$dir/model/final_model" --data "$dir/tokenized" --json | tee "$dir/eval.json"
fi
loss=$(field loss "$dir/eval.json")
entropy=$(field unigram_entropy "$dir/eval.json")
awk -v loss="$loss" -v entropy="$entropy" 'BEGIN {
	printf "held-out loss %.3f nat, unigram entropy %.3f: %.3f below\n", loss, entropy, entropy - loss
	exit !(loss + 0.3 <= entropy) }' || { echo "the model did not learn enough" >&2; exit 1; }

step generate
"$bin" generate --model "$dir/model/final_model" --prompt 高血压要注意 --samples 3 --seed 7
printf '头痛怎么办\n感冒了\n' | "$bin" generate --model "$dir/model/final_model" --samples 1 --jsonl --quiet

step serve
"$bin" serve --model "$dir/model/final_model" --port "$port" 2> "$dir/serve.log" &
server=$!
trap 'kill $server 2>/dev/null || true' EXIT
for _ in $(seq 100); do
	curl -sf "http://127.0.0.1:$port/ready" > /dev/null && break
	kill -0 $server || { cat "$dir/serve.log" >&2; exit 1; }
	sleep 0.1
done
answer=$(curl -s -X POST "http://127.0.0.1:$port/generate" -H "Content-Type: application/json" \
	-d '{"context":"高血压要注意","maxlength":50,"samples":5}')
printf '%s\n' "$answer"
case $answer in
*'"result"'*高血压要注意*'"time"'*) ;;
*) echo "not the answer expected" >&2; exit 1 ;;
esac
kill -TERM $server
wait $server || code=$?
trap - EXIT
[ "${code:-0}" = 0 ] || { echo "the server ended with $code" >&2; exit 1; }
step "done: $dir"
