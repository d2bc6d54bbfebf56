#!/usr/bin/env bash
# Times generation beside llama.cpp on the same weights, in turn, and prints the
# ratios: prefill of 512 tokens, decoding of one text, five texts together.
#
#   scripts/compare_llama.sh MODEL_FOLDER LLAMA_BIN_FOLDER [ROUNDS] [DTYPE…]
#
# LLAMA_BIN_FOLDER holds llama-bench and llama-batched-bench. PROMPTGEN is the
# program to time (default: built from here). A machine's speed drifts, so the
# ratio is the median of the rounds' ratios, in which the two took turns; the
# speeds beside it are the best of all rounds. llama.cpp's prefill is the better of
# its 16-bit and its fp32 cache.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2; }
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
	for r in $(seq "$rounds"); do
		"$promptgen" bench infer --model "$model" --dtype "$d" --threads 2 --json --quiet | tr -d '\n' >>"$work/$d.$r.ours"
		echo >>"$work/$d.$r.ours"
		"$llama/llama-bench" -m "$gguf" -t 2 -p 512 -n 128 -r 3 -o jsonl >>"$work/$d.$r.bench" 2>/dev/null
		# llama-bench no longer takes an fp32 cache.
		"$llama/llama-batched-bench" -m "$gguf" -t 2 -c 1024 -npp 512,512,512 -ntg 1 -npl 1 -ctk f32 -ctv f32 --output-format jsonl >>"$work/$d.$r.batched" 2>/dev/null
		"$llama/llama-batched-bench" -m "$gguf" -t 2 -c 2048 -npp 6 -ntg 50 -npl 1,5 --output-format jsonl >>"$work/$d.$r.batched" 2>/dev/null
	done
	python3 - "$d" "$work" "$rounds" <<'PY'
import json, statistics, sys
d, work, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
def lines(r, kind):
    return [json.loads(l) for l in open(f"{work}/{d}.{r}.{kind}") if l.startswith("{")]
names = "prefill 512, tokens/s", "decode, tokens/s", "5 x 50, tokens/s"
ours, speeds = [], []
for r in range(1, rounds + 1):
    (o,), bench, batched = lines(r, "ours"), lines(r, "bench"), lines(r, "batched")
    ours.append(o)
    speeds.append((
        (o["prefill_tokens_per_s"], max([b["avg_ts"] for b in bench if b["n_prompt"]] + [b["speed_pp"] for b in batched if b["pp"] == 512])),
        (o["decode_tokens_per_s"], max(b["avg_ts"] for b in bench if b["n_gen"])),
        (o["batch5_tokens_per_s"], max(b["speed_tg"] for b in batched if b["pl"] == 5)),
    ))
for name, pairs in zip(names, zip(*speeds)):
    ratios = sorted(a / b for a, b in pairs)
    print(f"{d:5} {name:22} {max(a for a, _ in pairs):8.1f}  llama.cpp {max(b for _, b in pairs):8.1f}"
          f"  ratio {statistics.median(ratios):5.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
print(f"{d:5} of the bandwidth {100 * statistics.median(o['decode_share_of_limit'] for o in ours):.0f} %; at {ours[0]['long_tokens']} tokens "
      f"{100 * statistics.median(o['decode_long_share_of_speed'] for o in ours):.0f} % of the speed; request "
      f"{statistics.median(o['request_5x50_ms'] for o in ours):.0f} ms; peak {min(o['peak_rss_bytes'] for o in ours) / 1e6:.0f} MB")
PY
done
