#!/usr/bin/env bash
# Holds the memory plan against what trainings really take: runs a few steps,
# with validation and saving, of some forty configurations and prints for each
# the plan and the peak resident size as /usr/bin/time measures it.
#
#   scripts/plan_check.sh [CORPUS [VOCABULARY]]     builds the program and checks
#   BIN=… FEW=1 scripts/plan_check.sh               every fifth configuration only
#
# The peak must not exceed the plan; it must be at least nine tenths of a plan
# over 256 MiB, and within 24 MiB of a smaller one. Without a corpus a made-up
# one is used.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
bin=${BIN:-$dir/promptgen}
[ -n "${BIN:-}" ] || (cd "$root" && go build -o "$bin" ./cmd/promptgen)
corpus=${1:-} vocab=${2:-}
cd "$dir"
if [ -z "$corpus" ]; then
	corpus=corpus.txt
	for i in $(seq 40000); do printf '第%d个问题：头痛怎么办？\n多休息，多喝水，必要时请看第%d位医生。\n\n' "$i" "$((i * 7))"; done > "$corpus"
fi
if [ -z "$vocab" ]; then
	vocab=vocab.txt
	"$bin" vocab --corpus "$corpus" --out "$vocab" --level char --quiet > /dev/null
fi

# tokens N: a folder with about N training tokens, cut at $level.
level=char
tokens() {
	if [ ! -d "tokens-$level-$1" ]; then
		# Three bytes a character, and documents must end.
		head -c "$(($1 * 3 + 6000))" "$corpus" > "text-$1.txt"
		"$bin" tokenize --corpus "text-$1.txt" --vocab "$vocab" --level $level --val-fraction 0.05 --out "tokens-$level-$1" --quiet > /dev/null
	fi
	echo "tokens-$level-$1"
}

failed=0 done=0 n=0
printf '%-8s %-5s %-9s %5s %5s %10s %10s %8s\n' size dtype recompute batch n_ctx 'plan MiB' 'peak MiB' 'peak/plan'
# check SIZE SHAPE DTYPE RECOMPUTE BATCH N_CTX [FLAGS…]
check() {
	local size=$1 shape=$2 dtype=$3 recompute=$4 batch=$5 ctx=$6
	shift 6
	n=$((n + 1))
	[ -z "${FEW:-}" ] || [ $((n % 5)) = 1 ] || return 0
	echo "{\"n_ctx\": $ctx, $shape}" > config.json
	rm -rf model
	/usr/bin/time -v "$bin" train --config config.json --data "$(tokens $((batch * ctx * 3)))" --out model --epochs 1 \
		--batch-size "$batch" --dtype "$dtype" --recompute "$recompute" --warmup-steps 1 --json --quiet "$@" > result.json 2> time.txt || {
		head -n 1 time.txt
		failed=1
		return 0
	}
	local plan peak
	plan=$(sed -n 's/.*"planned_peak_bytes": *\([0-9]*\).*/\1/p' result.json)
	peak=$(($(sed -n 's/.*Maximum resident set size (kbytes): //p' time.txt) * 1024))
	awk -v p="$plan" -v r="$peak" -v line="$(printf '%-8s %-5s %-9s %5s %5s' "$size" "$dtype" "$recompute" "$batch" "$ctx")" 'BEGIN {
		m = 1048576
		ok = r <= p && (p > 256 * m ? r >= 0.9 * p : p - r <= 24 * m)
		printf "%s %10.1f %10.1f %8.1f %% %s\n", line, p / m, r / m, 100 * r / p, ok ? "" : "OUT OF BOUNDS"
		exit !ok
	}' || failed=1
	done=$((done + 1))
}

test='"n_embd": 128, "n_head": 2, "n_layer": 1'
mini='"n_embd": 384, "n_head": 6, "n_layer": 6'
small='"n_embd": 768, "n_head": 12, "n_layer": 12'
for dtype in fp32 bf16; do
	for recompute in off on; do
		for at in "2 64" "8 64" "8 128" "4 256"; do check test "$test" $dtype $recompute $at; done
		for at in "2 128" "8 128" "4 256" "8 256"; do check mini "$mini" $dtype $recompute $at; done
		for at in "1 128" "4 128" "1 512"; do check small "$small" $dtype $recompute $at; done
	done
done
for dtype in fp32 bf16; do # with few weights trained
	check mini "$mini" $dtype off 4 256 --freeze wte,wpe,h.0-3
	check small "$small" $dtype off 2 128 --freeze wte
	check small "$small" $dtype off 1 256 --freeze wte,wpe,h.0-10
done
# adapters SIZE SHAPE BATCH N_CTX RANK: of low-rank adapters on a model of that shape
adapters() {
	local size=$1 shape=$2 batch=$3 ctx=$4 rank=$5
	rm -rf base
	echo "{\"n_ctx\": $ctx, $shape}" > config.json
	"$bin" train --config config.json --data "$(tokens $((ctx * 3)))" --out base --epochs 1 --batch-size 1 --warmup-steps 1 --quiet > /dev/null
	check "$size" "$shape" fp32 off "$batch" "$ctx" --init-from base/final_model --lora-rank "$rank"
	check "$size" "$shape" bf16 on "$batch" "$ctx" --init-from base/final_model --lora-rank "$rank" --lora-dropout 0.1
}
adapters mini "$mini" 4 256 8
adapters small "$small" 1 256 16
for recompute in off on; do # moments in bf16
	check test "$test" bf16 $recompute 8 128 --optimizer-state bf16
	check mini "$mini" fp32 $recompute 4 256 --optimizer-state bf16
	check small "$small" bf16 $recompute 1 512 --optimizer-state bf16
done
for at in "test" "mini"; do # and drawing samples, of words too, which takes a word list
	for level in char word; do check $at "${!at}" fp32 off 4 128 --sample-prompt 第一; done
done
level=char
check small "$small" fp32 off 1 256 --sample-prompt 第一
check small "$small" fp32 off 1 256 --sample-prompt 第一 --init-from base/final_model --lora-rank 16
echo "$done configurations"
exit $failed
