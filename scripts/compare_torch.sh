#!/usr/bin/env bash
# Runs `promptgen bench train` and a PyTorch training script in turn (A B A B …)
# and prints the ratios: a machine's speed drifts, so only neighbours compare.
#
#   scripts/compare_torch.sh torch_gpt2.py [ROUNDS]
#
# The script is called as
#   /usr/bin/python3 torch_gpt2.py train --shape S --dtype D --dropout P --threads T --seconds N
# and prints one line of JSON with tokens_per_s_median and peak_rss_mb (in MiB).
# Environment: SHAPES, DTYPES, DROPOUT, THREADS, STEP_SECONDS, PROMPTGEN (a
# binary; built here otherwise), RUN (a command put before each measurement).
set -euo pipefail
script=${1:-${TORCH_SCRIPT:-}}
[ -n "$script" ] || { sed -n '2,12s/^# \{0,1\}//p' "$0" >&2; exit 2; }
rounds=${2:-${ROUNDS:-2}}
shapes=${SHAPES:-test mini small256 small1024}
dtypes=${DTYPES:-fp32 bf16}
dropout=${DROPOUT:-0.1}
threads=${THREADS:-2}
seconds=${STEP_SECONDS:-6}
script=$(realpath "$script")
cd "$(dirname "$0")/.."
if [ -z "${PROMPTGEN:-}" ]; then
	tmp=$(mktemp -d)
	trap 'rm -rf "$tmp"' EXIT
	go build -o "$tmp/promptgen" ./cmd/promptgen
	PROMPTGEN=$tmp/promptgen
fi
program=$PROMPTGEN
unset PROMPTGEN # a variable of this script, not a flag of the program

field() { # JSON, key: the first number behind it
	sed -n "s/.*\"$2\": *\([0-9.]*\).*/\1/p" <<<"$1" | head -1
}
printf '%-10s %-5s %5s  %12s %12s %7s  %6s  %9s %9s\n' shape dtype round 'ours tok/s' 'torch tok/s' ratio mfu 'ours MiB' 'torch MiB'
for shape in $shapes; do
	for dtype in $dtypes; do
		for round in $(seq "$rounds"); do
			ours=$(${RUN:-} "$program" bench train --config "$shape" --dtype "$dtype" --dropout "$dropout" --threads "$threads" --json --quiet)
			peer=$(${RUN:-} /usr/bin/python3 "$script" train --shape "$shape" --dtype "$dtype" --dropout "$dropout" --threads "$threads" --seconds "$seconds")
			awk -v s="$shape" -v d="$dtype" -v r="$round" -v a="$(field "$ours" tokens_per_s)" \
				-v m="$(field "$ours" mfu)" -v am="$(field "$ours" peak_rss_bytes)" \
				-v b="$(field "$peer" tokens_per_s_median)" -v bm="$(field "$peer" peak_rss_mb)" \
				'BEGIN { printf "%-10s %-5s %5d  %12.0f %12.0f %7.2f  %5.1f%%  %9.0f %9.0f\n", s, d, r, a, b, a/b, 100*m, am/1048576, bm }'
		done
	done
done
