#!/usr/bin/env bash
# Trains on two "hosts" of one machine: network namespaces with a cable (veth)
# between them, reached by an agent script in place of ssh. Then pulls the cable:
# the job must end, and go on from its last checkpoint on the host that is left,
# with the weights of a run that nothing disturbed.
#
#   scripts/two_hosts.sh [DIR]
#
# DIR    where everything is written (default: a new temporary folder)
# BIN    names a binary that is built already.
# LIMIT  seconds that the job may take to notice (default 60, for busy machines;
#        an idle one needs under 15)
#
# Needs root, ip, unshare and Open MPI; says so and exits with 77 without them.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
dir=${1:-$(mktemp -d)}
limit=${LIMIT:-60}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
missing() { echo "two_hosts.sh: $*" >&2; exit 77; }
[ "$(id -u)" = 0 ] || missing "needs root"
for tool in ip unshare mpirun.openmpi; do
	command -v "$tool" >/dev/null || missing "$tool is not installed"
done

bin=${BIN:-$dir/promptgen}
[ -n "${BIN:-}" ] || (cd "$root" && go build -o "$bin" ./cmd/promptgen)

a=pg$$a b=pg$$b
cleanup() {
	for ns in $a $b; do
		# What still runs in there was started here.
		for pid in $(ip netns pids $ns 2>/dev/null); do kill -9 "$pid" 2>/dev/null || true; done
		ip netns del $ns 2>/dev/null || true
	done
}
ip netns add $a 2>/dev/null || missing "network namespaces are not allowed here"
trap cleanup EXIT
ip netns add $b
ip link add $a netns $a type veth peer name $b netns $b
for end in "$a 1" "$b 2"; do
	read -r ns n <<<"$end"
	ip -n "$ns" addr add "10.77.0.$n/24" dev "$ns"
	ip -n "$ns" link set lo up
	ip -n "$ns" link set "$ns" up
done
ip netns exec $a unshare --uts true 2>/dev/null || missing "UTS namespaces are not allowed here"

# Runs a command on a host as ssh would, with a host name of its own.
cat > "$dir/agent" <<SH
#!/bin/sh
host=\$1; shift
ip -n $a link show $a | grep -q 'state UP' || { echo "no route to \$host" >&2; exit 255; }
case \$host in 10.77.0.1) ns=$a;; *) ns=$b;; esac
exec ip netns exec \$ns unshare --uts sh -c "hostname host-\$ns; \$*"
SH
chmod +x "$dir/agent"
printf '10.77.0.1 slots=1\n10.77.0.2 slots=1\n' > "$dir/hosts"

printf '[SEP]\n[CLS]\n[MASK]\n[PAD]\n[UNK]\na\nb\nc\nd\ne\nf\ng\n' > "$dir/vocab.txt"
mkdir -p "$dir/data"
awk 'BEGIN { for (i = 0; i < 16*80; i++) printf "%d ", 5 + int(i*i/3 + i) % 7 }' > "$dir/data/tokenized_train_0.txt"
echo '{"n_ctx": 16, "n_positions": 16, "n_embd": 32, "n_head": 2, "n_layer": 2, "dropout": 0.1}' > "$dir/config.json"
train=(train --config "$dir/config.json" --data "$dir/data" --vocab "$dir/vocab.txt" --epochs 120 --batch-size 4 --grad-accum 2
	--shards 8 --threads 1 --lr 1e-2 --save-every 20 --keep-epochs 1)
lines() { cat "$dir/out/metrics.jsonl" 2>/dev/null | wc -l; }
bytes() { ip netns exec $a cat /sys/class/net/$a/statistics/tx_bytes; }

echo "== one process"
"$bin" "${train[@]}" --out "$dir/calm" --quiet > /dev/null

echo "== two hosts"
export OMPI_MCA_plm_rsh_agent=$dir/agent OMPI_MCA_btl=tcp,self
ip netns exec $a unshare --uts sh -c 'hostname host-'$a'; exec "$@"' sh \
	"$bin" launch --mpirun mpirun.openmpi --np 2 --hostfile "$dir/hosts" --max-restarts 2 -- \
	"${train[@]}" --out "$dir/out" > "$dir/log" 2>&1 &
job=$!
fail() { echo "two_hosts.sh: $*" >&2; tail -n 30 "$dir/log" >&2; exit 1; }
for ((i = 0; $(lines) < 50; i++)); do
	kill -0 $job 2>/dev/null && ((i < 1200)) || fail "no training on two hosts"
	sleep 0.1
done
sent=$(bytes)
((sent > 100000)) || fail "only $sent bytes went over the cable"

echo "== the cable is pulled"
ip -n $a link set $a down
pulled=$(date +%s)
until grep -q 'restart 1 of 2' "$dir/log"; do
	kill -0 $job 2>/dev/null || fail "the job was not started again"
	(($(date +%s) - pulled <= limit)) || fail "the job did not notice within $limit s"
	sleep 0.1
done
echo "the job ended and was started again after $(($(date +%s) - pulled)) s"
wait $job || fail "the job failed"
grep -q '10.77.0.2 does not answer' "$dir/log" || fail "the lost host was not told"
grep -q 'going on from step' "$dir/log" || fail "the job began anew"
for ((i = 0; i < limit * 10; i++)); do
	[ -n "$(ip netns pids $b)" ] || break
	sleep 0.1
done
[ -z "$(ip netns pids $b)" ] || fail "the lost host's rank still runs"
cmp "$dir/calm/final_model/model.safetensors" "$dir/out/final_model/model.safetensors" || fail "other weights than those of an undisturbed run"
echo "same weights as a run that nothing disturbed"
