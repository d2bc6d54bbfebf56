#!/usr/bin/env bash
# Every kind of bad input must end in one line on standard error, with the right
# exit code, and leave nothing half written.
#
#   scripts/errors.sh            builds the program and checks
#   BIN=… scripts/errors.sh
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
bin=${BIN:-$dir/promptgen}
[ -n "${BIN:-}" ] || (cd "$root" && go build -o "$bin" ./cmd/promptgen)
cd "$dir"

failed=0
# expect CODE PATTERN ARGUMENTS…: runs the program; its last line must match.
expect() {
	local code=$1 pattern=$2 got=0
	shift 2
	"$bin" "$@" --quiet > out 2> err < /dev/null || got=$?
	local lines verdict=ok
	lines=$(wc -l < err)
	[ "$got" = "$code" ] || verdict="exit code $got, not $code"
	[ "$lines" = 1 ] || verdict="$lines lines on standard error"
	grep -qE -- "$pattern" err || verdict="no \"$pattern\" in it"
	printf '%s\t%s\n\t%s\n' "$verdict" "$*" "$(head -n 1 err)"
	[ "$verdict" = ok ] || failed=1
}
absent() {
	for f in "$@"; do
		[ ! -e "$f" ] || { echo "left behind: $f"; failed=1; }
	done
}

# What good input looks like.
for i in $(seq 60); do printf '第%d个问题：头痛怎么办？\n多休息，多喝水，必要时请看医生。\n\n' "$i"; done > corpus.txt
"$bin" vocab --corpus corpus.txt --out vocab.txt --quiet > /dev/null
"$bin" tokenize --corpus corpus.txt --vocab vocab.txt --out tokens --quiet > /dev/null
echo '{"n_ctx": 32, "n_embd": 16, "n_head": 2, "n_layer": 1}' > tiny.json
"$bin" train --config tiny.json --data tokens --out model --epochs 1 --batch-size 2 --quiet > /dev/null

# Files that are not there.
expect 2 'absent.txt' vocab --corpus absent.txt --out v2.txt
expect 2 'absent.txt' tokenize --corpus absent.txt --vocab vocab.txt --out t2
expect 2 'absent' tokenize --corpus corpus.txt --vocab absent.txt --out t2
expect 2 'absent' train --config tiny.json --data absent --out m2
expect 2 'absent.json' train --config absent.json --data tokens --out m2
expect 2 'absent' eval --model absent --data tokens
expect 2 'absent' generate --model absent --prompt x
expect 2 'absent' serve --model absent --port 0
expect 2 'absent' inspect absent
absent v2.txt t2 m2

# An empty corpus.
: > empty.txt
expect 3 'empty.txt|no document|no word|no text' vocab --corpus empty.txt --out v2.txt
expect 3 'empty.txt|no document|no text' tokenize --corpus empty.txt --vocab vocab.txt --out t2
absent v2.txt t2

# A vocabulary without [UNK].
grep -vF '[UNK]' vocab.txt > nounk.txt
expect 5 'nounk.txt.*\[UNK\]' tokenize --corpus corpus.txt --vocab nounk.txt --out t2
absent t2

# A config with three faults: all of them in one line.
echo '{"n_ctx": 0, "n_embd": 100, "n_head": 3, "n_layer": 1, "n_lyer": 2}' > bad.json
expect 2 'n_lyer.*n_layer.*n_ctx.*n_embd' train --config bad.json --data tokens --out m2
echo '{"n_ctx": 32, "n_embd": 16, "n_head": 2, "n_layer": 1, "vocab_size": 7}' > vocabsize.json
expect 2 'vocab_size|vocabulary' train --config vocabsize.json --data tokens --out m2
absent m2

# A model folder with a missing tensor: a header whose names are changed.
cp -r model/final_model torn
sed -i 's/transformer.h.0.ln_1.weight/transformer.h.0.ln_9.weight/' torn/model.safetensors
expect 5 'torn' generate --model torn --prompt x
expect 5 'torn' eval --model torn --data tokens
expect 5 'torn' serve --model torn --port 0
cp -r model/final_model short
head -c 3000 model/final_model/model.safetensors > short/model.safetensors
expect 5 'short' generate --model short --prompt x
cp -r model/final_model empty_model
rm empty_model/model.safetensors
expect 5 'empty_model' generate --model empty_model --prompt x

# A vocabulary that does not belong to the model.
{ cat vocab.txt; printf '多余的\n词\n'; } > other.txt
expect 5 'other.txt|vocabulary' generate --model model/final_model --vocab other.txt --prompt x
"$bin" tokenize --corpus corpus.txt --vocab other.txt --out tokens_other --quiet > /dev/null
expect 5 'vocabulary' eval --model model/final_model --data tokens_other

# Token shards that were damaged.
cp -r tokens torn_tokens
for f in torn_tokens/*; do case $f in *manifest*) ;; *) printf 'xxxx' >> "$f" ;; esac; done
expect 5 'torn_tokens' train --config tiny.json --data torn_tokens --out m2
absent m2

# Too little text for one step.
printf '头痛\n' > little.txt
"$bin" tokenize --corpus little.txt --vocab vocab.txt --out little --quiet > /dev/null
expect 3 'step|window|tokens' train --config small --data little --out m2
absent m2/final_model

# A model without its vocabulary: where it may be named.
cp -r model/final_model novocab
rm novocab/vocab.txt
expect 5 'novocab.*--vocab FILE' generate --model novocab --prompt x

# Wrong usage.
expect 2 'epochs' train --epoch 3
expect 2 'train' trian
expect 2 'unexpected argument' train tokens
expect 2 'whole number' train --epochs many
expect 2 'cuda' train --config tiny.json --data tokens --out m2 --device cuda
expect 2 'level' tokenize --corpus corpus.txt --vocab vocab.txt --out t2 --level letters
expect 2 'temperature.*top_p' generate --model model/final_model --prompt x --temperature -1 --top-p 3
expect 2 'threads' tokenize --corpus corpus.txt --vocab vocab.txt --out t2 --threads 2147483648
expect 2 'num-pieces' tokenize --corpus corpus.txt --vocab vocab.txt --out t2 --compat book --num-pieces 2000000000
expect 2 'config is empty' train --config '' --data tokens --out m2
expect 2 'unknown flag --epoch' launch --np 2 -- train --epoch 3
expect 2 'port' serve --model model/final_model --port 99999999

[ $failed = 0 ] && echo "all good"
exit $failed
