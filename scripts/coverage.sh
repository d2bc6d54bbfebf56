#!/usr/bin/env bash
# Prints which share of each package's statements a test run reached, and fails
# where it is less than LEAST percent. Programs in scripts/ and packages that only
# tests import are checks themselves, and are left out.
#
#   go test -coverprofile cover.out -coverpkg ./... ./...
#   scripts/coverage.sh cover.out [LEAST, default 85]
set -euo pipefail
awk -v least="${2:-85}" '
	NR == 1 || /^promptgen\/(scripts|internal\/(testkit|tracee|tfevents\/tfread))\// { next }
	# FILE:FROM,TO STATEMENTS COUNT, once for each test binary
	{ statements[$1] = $2; if ($3 > 0) reached[$1] = 1 }
	END {
		for (block in statements) {
			package = block
			sub(/\/[^\/]*$/, "", package)
			all[package] += statements[block]
			if (block in reached) some[package] += statements[block]
		}
		for (package in all) {
			share = 100 * some[package] / all[package]
			printf "%5.1f %% of %4d  %s\n", share, all[package], package | "sort -k 5"
			if (share < least) short = short " " package
			total += all[package]; hit += some[package]
		}
		close("sort -k 5")
		printf "%5.1f %% of %d statements\n", 100 * hit / total, total
		if (short != "") { print "below " least " %:" short > "/dev/stderr"; exit 1 }
	}' "$1"
