#!/usr/bin/env bash
# Runs every fuzz target of the tree for some seconds each.
#
#   scripts/fuzz.sh [TIME]        TIME as go test -fuzztime takes it (default 3s)
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-3s}
go test -list '^Fuzz' ./... | awk '
	/^Fuzz/ { targets[n++] = $1 }
	/^ok/   { for (i = 0; i < n; i++) print $2, targets[i]; n = 0 }' |
	while read -r package target; do
		report=$(go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "$package" 2>&1 </dev/null) || { printf '%s\n' "$report"; exit 1; }
		printf '%s %s: %s\n' "$package" "$target" "$(grep -o 'execs: [0-9]*' <<<"$report" | tail -n 1)"
	done
