#!/usr/bin/env bash
# Times generation beside llama.cpp on the same weights, in turn, and prints the
# ratios: prefill of 512 tokens, decoding of one text, five texts together.
#
#   scripts/compare_llama.sh MODEL_FOLDER LLAMA_BIN_FOLDER [ROUNDS] [DTYPE…]
#
# LLAMA_BIN_FOLDER holds llama-bench and llama-batched-bench. PROMPTGEN is the
# program to time (default: built from here). Each figure is the best of the
# rounds; llama.cpp's prefill is the better of its 16-bit and its fp32 cache.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
model=$(realpath "$1") llama=$(realpath "$2") rounds=${3:-2}
shift $(($# < 3 ? $# : 3))
dtypes=("$@")
[ ${#dtypes[@]} -gt 0 ] || dtypes=(fp32 bf16 q8_0 q4_0)
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
promptgen=${PROMPTGEN:-$work/promptgen}
[ -x "$promptgen" ] || go build -o "$promptgen" ./cmd/promptgen
export OMP_PROC_BIND=true

for d in "${dtypes[@]}"; do
	gguf=$work/$d.gguf
	"$promptgen" export --quiet --model "$model" --format gguf --dtype "$d" --out "$gguf" >/dev/null
	for _ in $(seq "$rounds"); do
		"$promptgen" bench infer --model "$model" --dtype "$d" --threads 2 --json --quiet | tr -d '\n' >>"$work/$d.ours"
		echo >>"$work/$d.ours"
		"$llama/llama-bench" -m "$gguf" -t 2 -p 512 -n 128 -r 3 -o jsonl >>"$work/$d.bench" 2>/dev/null
		# llama-bench no longer takes an fp32 cache.
		"$llama/llama-batched-bench" -m "$gguf" -t 2 -c 1024 -npp 512,512,512 -ntg 1 -npl 1 -ctk f32 -ctv f32 --output-format jsonl >>"$work/$d.batched" 2>/dev/null
		"$llama/llama-batched-bench" -m "$gguf" -t 2 -c 2048 -npp 6 -ntg 50 -npl 1,5 --output-format jsonl >>"$work/$d.batched" 2>/dev/null
	done
	python3 - "$d" "$work" <<'PY'
import json, sys
d, work = sys.argv[1:]
def lines(kind):
    for l in open(f"{work}/{d}.{kind}"):
        if l.startswith("{"):
            yield json.loads(l)
ours, bench, batched = list(lines("ours")), list(lines("bench")), list(lines("batched"))
best = lambda xs: max(xs)
rows = [
    ("prefill 512, tokens/s", best(o["prefill_tokens_per_s"] for o in ours), best([b["avg_ts"] for b in bench if b["n_prompt"]] + [b["speed_pp"] for b in batched if b["pp"] == 512])),
    ("decode, tokens/s", best(o["decode_tokens_per_s"] for o in ours), best(b["avg_ts"] for b in bench if b["n_gen"])),
    ("5 x 50, tokens/s", best(o["batch5_tokens_per_s"] for o in ours), best(b["speed_tg"] for b in batched if b["pl"] == 5)),
]
for name, a, b in rows:
    print(f"{d:5} {name:22} {a:8.1f}  llama.cpp {b:8.1f}  ratio {a / b:5.2f}")
o = max(ours, key=lambda o: o["decode_share_of_limit"])
print(f"{d:5} of {o['limit_bytes_per_s'] / 1e9:.1f} GB/s {100 * o['decode_share_of_limit']:.0f} %; at {o['long_tokens']} tokens "
      f"{100 * best(o['decode_long_share_of_speed'] for o in ours):.0f} % of the speed; request {min(o['request_5x50_ms'] for o in ours):.0f} ms; "
      f"peak {min(o['peak_rss_bytes'] for o in ours) / 1e6:.0f} MB")
PY
done
