#!/usr/bin/env bash
# Runs the commands that the readmes and docs/book.md print, as they are printed,
# in a clean clone of what is committed, as someone does who has only Go (and
# curl): no cached module, no cached build, an empty HOME, GOFLAGS=-mod=readonly.
#
#   scripts/readme.sh [DIR]       DIR: where (default: a new temporary folder)
#
# README.zh-CN.md must have README.md's commands, comments apart. The questions
# and answers of the quickstart stand for the user's own text; commands that ask
# are answered with one prompt. Port 5005 must be free.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
work=${1:-$(mktemp -d)}
mkdir -p "$work/home" "$work/bin"
work=$(cd "$work" && pwd)
server=
cleanup() {
	[ -z "$server" ] || kill "$server" 2>/dev/null || true
	chmod -R u+w "$work/home" # Go writes its modules read-only
	rm -rf "$work"
}
trap cleanup EXIT

# Nothing of this machine but these programs: no C compiler, no git.
for tool in go bash sh env curl cat cp echo grep head kill ls mkdir printf rm sed sleep sort tail tr true uname wc; do
	path=$(type -P "$tool") || { echo "readme.sh: $tool is not installed" >&2; exit 77; }
	ln -s "$(realpath "$path")" "$work/bin/$tool"
done
echo fail > "$work/.curlrc" # a refused request is a failed command
# Where modules come from is part of the machine's network.
clean=(env -i PATH="$work/bin" HOME="$work/home" LANG="${LANG:-C.UTF-8}" GOFLAGS=-mod=readonly
	CURL_HOME="$work" GOPROXY="$(go env GOPROXY)" GOSUMDB="$(go env GOSUMDB)" GONOSUMDB="$(go env GONOSUMDB)" GOTOOLCHAIN="$(go env GOTOOLCHAIN)")

# commands FILE: the lines of its fenced blocks that name no language, continued
# lines joined, comments left out.
commands() {
	awk '/^```/ { inside = !inside && $0 == "```"; next }
		inside { sub(/ +# .*/, ""); if (sub(/\\$/, "")) { printf "%s", $0; next } print }' "$1" | grep -E '^(go|curl|echo|\./promptgen) '
}
cd "$root"
diff <(commands README.md) <(commands README.zh-CN.md) >&2 || { echo "readme.sh: the readmes print different commands" >&2; exit 1; }

# run COMMAND: says how long it took; a server is left running.
run() {
	local start=$SECONDS
	if [[ $1 == *"/promptgen serve"* ]]; then
		"${clean[@]}" bash -c "exec $1" > "$work/log" 2>&1 < /dev/null &
		server=$!
		until curl -fs -o "$work/ready" http://127.0.0.1:5005/ready; do
			kill -0 "$server" 2>/dev/null && ((SECONDS - start < 60)) || failed "$1"
			sleep 0.2
		done
	else
		"${clean[@]}" bash -o pipefail -c "$1" > "$work/log" 2>&1 <<<高血压要注意 || failed "$1"
	fi
	printf '%4d s  %s\n' $((SECONDS - start)) "$1"
}
failed() {
	printf 'readme.sh: failed: %s\n' "$1" >&2
	grep -nE -A 20 '^ *--- FAIL|^panic:' "$work/log" >&2 || tail -n 40 "$work/log" >&2
	exit 1
}

for document in README.md docs/book.md; do
	printf '%s\n' "$document"
	cd "$root"
	rm -rf "$work/clone"
	git clone -q "$root" "$work/clone"
	cd "$work/clone"
	sed 's/$/\n/' cmd/promptgen/sample/qa.txt > data/mine.txt
	while IFS= read -r command <&3; do run "$command"; done 3< <(commands "$document")
	[ -z "$server" ] || { kill "$server"; wait "$server" || true; server=; }
done
