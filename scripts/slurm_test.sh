#!/usr/bin/env bash
# Starts a real Slurm with two nodes on this machine, runs tests/slurm.rs against it, and takes it down again.
#
#   scripts/slurm_test.sh [CARGO ARGUMENTS]      e.g. --features tch, for four ranks over both nodes
#
# Needs root and Debian or Ubuntu; installs slurm-wlm and munge where they are missing. Its own state lies in a temporary
# folder; a Slurm that is configured already is left alone, and refused.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() { # MESSAGE HELP
    printf 'error: %s\n  help: %s\n' "$1" "$2" >&2
    exit 1
}

[ "$(id -u)" -eq 0 ] || fail "slurm_test.sh runs as root only" "start it with sudo, or in a container"
if ! command -v slurmctld >/dev/null || ! command -v slurmd >/dev/null || ! command -v munged >/dev/null; then
    apt-get install -y --no-install-recommends slurm-wlm munge >&2
fi
[ ! -e /etc/slurm/slurm.conf ] || fail "/etc/slurm/slurm.conf exists" "run this where no Slurm is configured"

state=$(mktemp -d /tmp/slurm-test.XXXXXX)
chmod 755 "$state"
host=$(hostname -s)
cores=$(nproc)
pids=()
stop() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    sed -i '/# slurm_test.sh$/d' /etc/hosts 2>/dev/null || { grep -v '# slurm_test.sh$' /etc/hosts >"$state/hosts" && cat "$state/hosts" >/etc/hosts; }
    rm -rf "$state"
}
trap stop EXIT

mkdir -p "$state/munge" "$state/ctld" "$state/n1" "$state/n2"
dd if=/dev/urandom of="$state/munge/key" bs=1024 count=1 status=none
chmod 700 "$state/munge"
chmod 400 "$state/munge/key"
socket=$state/munge/socket
munged --foreground --force --key-file "$state/munge/key" --socket "$socket" --pid-file "$state/munge/pid" \
    --log-file "$state/munge/log" --seed-file "$state/munge/seed" &
pids+=($!)
chmod 711 "$state/munge"

# Both nodes are this machine, so each name leads to it.
printf '127.0.0.1 n1 n2 # slurm_test.sh\n' >>/etc/hosts
cat >"$state/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$socket
CredType=cred/munge
StateSaveLocation=$state/ctld
SlurmdSpoolDir=$state/%n
SlurmctldPidFile=$state/ctld/pid
SlurmdPidFile=$state/%n/pid
SlurmctldLogFile=$state/ctld/log
SlurmdLogFile=$state/%n/log
SlurmctldPort=36817
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
KillWait=20
MinJobAge=300
SchedulerParameters=sched_interval=1,batch_sched_delay=0
RequeueExit=
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=36818 CPUs=$cores State=UNKNOWN
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=36819 CPUs=$cores State=UNKNOWN
PartitionName=test Nodes=n1,n2 Default=YES MaxTime=60 State=UP OverSubscribe=FORCE:8
CONF
sed -i '/^RequeueExit=$/d' "$state/slurm.conf"
export SLURM_CONF=$state/slurm.conf
for _ in $(seq 50); do [ -S "$socket" ] && break || sleep 0.1; done
slurmctld -D -i -f "$SLURM_CONF" >"$state/ctld/out" 2>&1 &
pids+=($!)
for node in n1 n2; do
    slurmd -D -N "$node" -f "$SLURM_CONF" >"$state/$node.out" 2>&1 &
    pids+=($!)
done
for _ in $(seq 100); do
    [ "$(sinfo --noheader --format=%T 2>/dev/null | sort -u)" = idle ] && break || sleep 0.2
done
sinfo >&2 || fail "the test Slurm did not come up: $(tail -n 3 "$state/ctld/log" "$state/n1/log" 2>/dev/null)" "read the lines above"

SLURM_TEST=1 cargo test --release --locked --test slurm "$@" -- --nocapture --test-threads=1
