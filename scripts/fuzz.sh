#!/usr/bin/env bash
# Runs every fuzz target of the tree for some seconds each.
#
#   scripts/fuzz.sh [TIME]        TIME as go test -fuzztime takes it (default 3s)
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-3s}

# Whether a report fails by the clock alone: go test ends its workers in a race
# with the deadline that it gave them (go.dev/issue/75804; mended in Go 1.27, after
# which this can go). What a target finds is always written as an input or told as
# a panic.
by_the_clock() {
	grep -q '^ *context deadline exceeded$' <<<"$1" && ! grep -qE 'Failing input|panic|fatal error|hung or terminated' <<<"$1"
}

# Fuzzes one target and prints how often it ran; a run that fails by the clock is
# done again, at most twice. New inputs are not made small: where goroutines make
# coverage differ by chance that took all of the time.
fuzz() {
	local report attempt
	for attempt in 1 2 3; do
		if report=$(go test -run '^$' -fuzz "^$2\$" -fuzztime "$time" -fuzzminimizetime 1x "$1" 2>&1 </dev/null); then
			printf '%s %s: %s\n' "$1" "$2" "$(grep -oE 'execs: [0-9]+|[0-9]+/[0-9]+ completed' <<<"$report" | tail -n 1)"
			return
		fi
		by_the_clock "$report" || break
	done
	printf '%s\n' "$report"
	return 1
}

go test -list '^Fuzz' ./... | awk '
	/^Fuzz/ { targets[n++] = $1 }
	/^ok/   { for (i = 0; i < n; i++) print $2, targets[i]; n = 0 }' |
	while read -r package target; do
		fuzz "$package" "$target"
	done
