#!/bin/bash
# A throw-away Slurm cluster on this one machine, for the tests: real daemons, loopback only, no systemd, everything below one
# folder. Needs root and Debian's or Ubuntu's packages (tests/provision.sh). Slurm 22.05, 24.11 and 26.05 read this configuration.
#
#   SLURMCI_ROOT=/var/tmp/slurm tests/slurm/cluster.sh up     # status, env, down; the rest is listed at the end of this file
#
# partitions: small (default) on cpu01…, gpu on gpu01… (four invented a100 each), low and high on pre01 (high preempts low, whose
#   jobs are requeued), tiny on cpu01… (five minutes, one node, account proj1, quality normal or short only)
# accounts: proj1 (default), proj2, capped (four cores for all its jobs together); every user has all three
# qualities: normal, short (ten minutes, eight cores per user), few (two jobs submitted, one running), closed (nobody's)
set -euo pipefail
ROOT=${SLURMCI_ROOT:?is the folder for everything; every user must be able to enter the folders above it}
BASEPORT=${SLURMCI_PORT:-21800}    # +6 MariaDB, +17 slurmctld, +19 slurmdbd, +20 slurmrestd, +101… slurmd
DBD=${SLURMCI_DBD:-1}              # 0: a site without slurmdbd
NGPU=${SLURMCI_NGPU:-2}
NCPU=${SLURMCI_NCPU:-2}
CORES=${SLURMCI_CORES:-16}         # of each node, invented
USERS=${SLURMCI_USERS:-lossi-tester1 lossi-tester2}    # made where missing, and left
CTLD_PORT=$((BASEPORT + 17)) DBD_PORT=$((BASEPORT + 19)) MYSQL_PORT=$((BASEPORT + 6)) REST_PORT=$((BASEPORT + 20))
NODE_PORT=$((BASEPORT + 100))
GPUS="gpu[01-$(printf %02d "$NGPU")]" CPUS="cpu[01-$(printf %02d "$NCPU")]"
export SLURM_CONF=$ROOT/etc/slurm.conf
umask 022
cd /

background() {    # background NAME USER COMMAND…: detached, its process id kept
  local name=$1 user=$2
  shift 2
  local drop=()
  [ "$user" = root ] || drop=(setpriv --reuid "$user" --regid "$user" --init-groups)
  setsid "${drop[@]}" "$@" </dev/null >>"$ROOT/log/$name.out" 2>&1 &
  echo $! >"$ROOT/pid/$name"
}

add_user() {    # add_user NAME OPTION…: unless there is one; clusters that start at once do it in turn
  # shellcheck disable=SC2016 # the inner shell expands them
  flock /run/lock/lossi-tests-users sh -c 'id "$1" >/dev/null 2>&1 || useradd "$@"' sh "$@" 2>>"$ROOT/log/users.out"
}

within() {    # within SECONDS COMMAND…: until it succeeds
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    if [ $SECONDS -ge $end ]; then
      echo "not in time: $*; see $ROOT/log" >&2
      return 1
    fi
    sleep 0.05
  done
}

lives() {    # a zombie does not
  local state
  state=$(ps -o stat= -p "$1" 2>/dev/null) && [ "${state:0:1}" != Z ]
}

stop() {    # stop NAME [SIGNAL]
  local file=$ROOT/pid/$1 pid
  [ -f "$file" ] || return 0
  pid=$(cat "$file")
  kill "-${2:-TERM}" "$pid" 2>/dev/null || true
  for _ in $(seq 400); do
    lives "$pid" || break
    sleep 0.05
  done
  if lives "$pid"; then kill -KILL "$pid"; fi
  rm -f "$file"
}

LAP=${EPOCHREALTIME/[.,]/}
lap() {
  local now=${EPOCHREALTIME/[.,]/}
  printf '%-28s %5d ms\n' "$1" $(((now - LAP) / 1000))
  LAP=$now
}

configure() {
  local host
  host=$(hostname -s)
  mkdir -p "$ROOT"/{etc/clusters.d,log,pid,run,state,spool,mysql,jobcomp,dev}
  chmod 755 "$ROOT" "$ROOT"/{etc,etc/clusters.d,log,pid,run,spool,dev}
  chown slurm: "$ROOT"/{log,run,state,jobcomp}
  # A key and a socket of its own, so that the machine's munged is not needed.
  install -d -o munge -g munge -m 755 "$ROOT/munge"
  [ -s "$ROOT/munge/munge.key" ] || (umask 077 && head -c 128 /dev/urandom >"$ROOT/munge/munge.key")
  chown munge: "$ROOT/munge/munge.key"
  chmod 400 "$ROOT/munge/munge.key"
  [ -s "$ROOT/etc/jwt_hs256.key" ] || (umask 077 && head -c 32 /dev/urandom >"$ROOT/etc/jwt_hs256.key")
  chown slurm: "$ROOT/etc/jwt_hs256.key"
  chmod 600 "$ROOT/etc/jwt_hs256.key"
  # Invented GPUs must be character devices: a plain file gives an idle node whose jobs get no CUDA_VISIBLE_DEVICES.
  local devices="$ROOT/dev/gpu[0-3]"
  for number in 0 1 2 3; do
    [ -c "$ROOT/dev/gpu$number" ] || mknod -m 666 "$ROOT/dev/gpu$number" c 1 3 2>/dev/null || devices="/dev/tty[0-3]"
  done
  local accounting="AccountingStorageType=accounting_storage/none" tiny=""
  if [ "$DBD" = 1 ]; then
    accounting="AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$DBD_PORT
AccountingStoragePass=socket=$ROOT/munge/munge.sock
AccountingStorageTRES=gres/gpu
AccountingStorageEnforce=associations,limits,qos
AccountingStoreFlags=job_comment,job_env,job_script"
    tiny="AllowAccounts=proj1 AllowQos=normal,short"
  fi
  cat >"$ROOT/etc/slurm.conf.new" <<C
ClusterName=ci
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$CTLD_PORT
SlurmUser=slurm
SlurmdUser=root
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
DebugFlags=NO_CONF_HASH
# identity: munge on a private socket, JWT for slurmrestd
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$ROOT/munge/munge.sock
AuthAltTypes=auth/jwt
AuthAltParameters=jwt_key=$ROOT/etc/jwt_hs256.key
# files
StateSaveLocation=$ROOT/state
SlurmdSpoolDir=$ROOT/spool/%n
SlurmctldPidFile=$ROOT/run/slurmctld.pid
SlurmdPidFile=$ROOT/run/slurmd-%n.pid
SlurmctldLogFile=$ROOT/log/slurmctld.log
SlurmdLogFile=$ROOT/log/slurmd-%n.log
SlurmctldDebug=info
SlurmdDebug=info
# no cgroups, no MPI, no prolog
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=${SLURMCI_GATHER:-1}
JobAcctGatherParams=OverMemoryKill
MailProg=/bin/true
# quick reactions
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=10000,bf_interval=1,bf_continue
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
PriorityType=priority/multifactor
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
SlurmdParameters=config_overrides
GresTypes=gpu
MaxArraySize=${SLURMCI_MAXARRAY:-20001}
EnforcePartLimits=${SLURMCI_ENFORCE:-ALL}
MaxJobCount=50000
MinJobAge=${SLURMCI_MINJOBAGE:-600}
KillWait=${SLURMCI_KILLWAIT:-2}
InactiveLimit=0
SlurmctldTimeout=60
SlurmdTimeout=${SLURMCI_SLURMDTIMEOUT:-60}
UnkillableStepTimeout=60
BatchStartTimeout=${SLURMCI_BATCHSTARTTIMEOUT:-300}
MessageTimeout=${SLURMCI_MESSAGETIMEOUT:-10}
ReturnToService=2
RebootProgram=/bin/true
JobCompType=jobcomp/filetxt
JobCompLoc=$ROOT/jobcomp/jobcomp.log
$accounting
# nodes: one slurmd each on this host; cores and memory are invented (config_overrides)
NodeName=DEFAULT State=UNKNOWN Sockets=1 CoresPerSocket=$CORES ThreadsPerCore=1 CPUs=$CORES RealMemory=$((CORES * 4000)) TmpDisk=1000
NodeName=$GPUS NodeHostname=$host NodeAddr=127.0.0.1 Port=[$((NODE_PORT + 1))-$((NODE_PORT + NGPU))] Gres=gpu:a100:4 Feature=gpu,a100
NodeName=$CPUS NodeHostname=$host NodeAddr=127.0.0.1 Port=[$((NODE_PORT + 51))-$((NODE_PORT + 50 + NCPU))] Feature=cpu
NodeName=pre01 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((NODE_PORT + 91)) Feature=pre
PartitionName=DEFAULT State=UP MaxTime=1-00:00:00 DefaultTime=00:10:00 DefMemPerCPU=1000 OverSubscribe=NO PreemptMode=OFF
PartitionName=small Nodes=$CPUS Default=YES
PartitionName=gpu Nodes=$GPUS
PartitionName=tiny Nodes=$CPUS MaxTime=5 DefaultTime=5 MaxNodes=1 $tiny
PartitionName=low Nodes=pre01 PriorityTier=1 PreemptMode=REQUEUE
PartitionName=high Nodes=pre01 PriorityTier=100
C
  mv "$ROOT/etc/slurm.conf.new" "$ROOT/etc/slurm.conf"
  printf 'AutoDetect=off\nNodeName=%s Name=gpu Type=a100 File=%s\n' "$GPUS" "$devices" >"$ROOT/etc/gres.conf"
  # Read by the plugins that use cgroups, none of which is; 22.05 knows no way to say so.
  local version
  version=$(slurmctld -V)
  case $version in
    "slurm-wlm 2"[0-3].*) printf 'CgroupAutomount=no\nConstrainCores=no\nConstrainRAMSpace=no\nConstrainDevices=no\n' ;;
    *) echo CgroupPlugin=disabled ;;
  esac >"$ROOT/etc/cgroup.conf"
  (umask 077 && cat >"$ROOT/etc/slurmdbd.conf") <<C
AuthType=auth/munge
AuthInfo=socket=$ROOT/munge/munge.sock
AuthAltTypes=auth/jwt
AuthAltParameters=jwt_key=$ROOT/etc/jwt_hs256.key
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=$DBD_PORT
SlurmUser=slurm
DebugLevel=info
LogFile=$ROOT/log/slurmdbd.log
PidFile=$ROOT/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$MYSQL_PORT
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
C
  chown slurm: "$ROOT/etc/slurmdbd.conf"
  # What Open OnDemand knows of a cluster.
  cat >"$ROOT/etc/clusters.d/ci.yml" <<C
---
v2:
  metadata:
    title: "Throw-away cluster"
  login:
    host: "$host"
  job:
    adapter: "slurm"
    bin: "$(dirname "$(command -v sbatch)")"
    conf: "$SLURM_CONF"
C
}

start_munge() {
  local place=$ROOT/munge
  background munged munge munged --foreground --socket="$place/munge.sock" --key-file="$place/munge.key" \
    --pid-file="$place/munged.pid" --log-file="$place/munged.log" --seed-file="$place/munged.seed" --num-threads=4 --force
  within 60 munge -S "$place/munge.sock" -n
}

start_mariadb() {
  local place=$ROOT/mysql scratch=$ROOT/mysql-tmp
  chown mysql: "$place"
  # Servers that share /tmp remove each other's temporary tables: two clusters that start at once fail now and then.
  install -d -o mysql -m 700 "$scratch"
  if [ ! -d "$place/mysql" ] && ! TMPDIR=$scratch mariadb-install-db --no-defaults --user=mysql --datadir="$place" --skip-test-db \
    --auth-root-authentication-method=socket >"$ROOT/log/mariadb-install.log" 2>&1; then
    tail -n 20 "$ROOT/log/mariadb-install.log" >&2
    return 1
  fi
  background mariadbd mysql mariadbd --no-defaults --datadir="$place" --socket="$place/s.sock" --pid-file="$place/pid" \
    --tmpdir="$scratch" \
    --bind-address=127.0.0.1 --port="$MYSQL_PORT" --innodb-buffer-pool-size=256M --innodb-log-file-size=64M \
    --innodb-lock-wait-timeout=900 --innodb-flush-log-at-trx-commit=0 --loose-innodb-snapshot-isolation=OFF \
    --skip-log-bin --skip-name-resolve
  within 120 mariadb-admin --no-defaults -S "$place/s.sock" ping
  mariadb --no-defaults -S "$place/s.sock" -e "create database if not exists slurm_acct_db;
    create user if not exists slurm@'127.0.0.1' identified by 'slurm'; grant all on slurm_acct_db.* to slurm@'127.0.0.1';"
}

start_dbd() {
  background slurmdbd slurm slurmdbd -D
  within 120 dbd_answers
}

dbd_answers() {    # 22.05 crashes now and then while it starts on a busy machine
  sacctmgr -n list cluster && return
  lives "$(cat "$ROOT/pid/slurmdbd")" || background slurmdbd slurm slurmdbd -D
  return 1
}

start_ctld() {
  background slurmctld slurm slurmctld -D -f "$SLURM_CONF"
  within 120 scontrol ping
  within 120 nodes_respond
}

nodes_respond() {    # those whose slurmd runs; until then slurmctld says that no node fits a request
  local file name
  for file in "$ROOT"/pid/slurmd-*; do
    name=${file##*/slurmd-}
    if [ -f "$file" ] && lives "$(cat "$file")"; then
      sinfo -h -n "$name" -o %T | grep -qvE '[*]|unknown' || return 1
    fi
  done
}

start_slurmd() {
  mkdir -p "$ROOT/spool/$1"
  background "slurmd-$1" root slurmd -D -N "$1" -f "$SLURM_CONF"
}

accounts() {    # those that exist are no error
  account() { sacctmgr -i "$@" >>"$ROOT/log/accounts.out" 2>&1 || true; }
  account add cluster ci
  account add qos short MaxWall=00:10:00 MaxTRESPerUser=cpu=8
  account add qos few MaxSubmitJobsPerUser=2 MaxJobsPerUser=1
  account add qos closed
  account modify cluster ci set qos=normal,short,few
  account add account proj1,proj2 Description=ci Organization=ci
  account add account capped Description=ci Organization=ci GrpTRES=cpu=4
  account add user "root,${USERS// /,}" Account=proj1,proj2,capped DefaultAccount=proj1
  sacctmgr -nP list association user="root,${USERS// /,}" format=user | grep -q .
}

nodes() { scontrol show hostnames "$GPUS,$CPUS,pre01"; }

idle() { [ "$(sinfo -h -N -t idle -o %N | sort -u | wc -l)" -eq "$1" ]; }

up() {
  local begin=$LAP count=0
  configure
  for user in $USERS; do
    add_user "$user" --create-home --shell /bin/bash
  done
  start_munge
  lap "configuration, munge"
  if [ "$DBD" = 1 ]; then
    start_mariadb
    lap MariaDB
    start_dbd
    accounts
    lap "slurmdbd, accounts"
  fi
  start_ctld
  lap slurmctld
  for node in $(nodes); do
    start_slurmd "$node"
    count=$((count + 1))
  done
  within 120 idle "$count"
  lap "$count nodes idle"
  LAP=$begin
  lap "up on port $BASEPORT"
}

end_steps() {    # slurmstepd outlives slurmd by design; what belongs to this cluster says so in its environment
  local environment pid
  for environment in /proc/[0-9]*/environ; do
    pid=${environment//[!0-9]/}
    if [ "$pid" != $$ ] && grep -qzxF "SLURM_CONF=$SLURM_CONF" "$environment" 2>/dev/null; then
      if [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = slurmstepd ] || grep -qz '^SLURMD_NODENAME=' "$environment" 2>/dev/null; then
        kill -KILL "$pid" 2>/dev/null || true
      fi
    fi
  done
}

down() {
  if [ -f "$ROOT/pid/slurmctld" ] && timeout 5 scontrol ping >/dev/null 2>&1; then
    squeue -h -o %A | sort -u | xargs -r scancel 2>/dev/null || true
    for _ in $(seq 80); do
      [ -n "$(timeout 5 squeue -h -t R,CG -o %A 2>/dev/null)" ] || break
      sleep 0.1
    done
  fi
  rest_down
  for file in "$ROOT"/pid/slurmd-*; do stop "$(basename "$file")"; done
  end_steps
  # slurmctld before slurmdbd, so that its last records reach the database.
  for name in slurmctld slurmdbd mariadbd munged; do stop "$name"; done
}

rest_up() {    # one for everybody by token on TCP, one of this user's on a unix socket
  local user=$1 place=$ROOT/rest-$1
  if [ ! -f "$ROOT/pid/slurmrestd" ]; then
    add_user slurmrestd --system --no-create-home --shell /usr/sbin/nologin
    SLURM_JWT=daemon background slurmrestd slurmrestd slurmrestd -a rest_auth/jwt "127.0.0.1:$REST_PORT"
  fi
  if [ ! -f "$ROOT/pid/slurmrestd-$user" ]; then
    install -d -o "$user" -m 700 "$place"
    rm -f "$place/sock"
    background "slurmrestd-$user" "$user" slurmrestd -a rest_auth/local "unix:$place/sock"
  fi
  within 60 bash -c "exec 3<>/dev/tcp/127.0.0.1/$REST_PORT && test -S '$place/sock'"
  echo "http://127.0.0.1:$REST_PORT $place/sock"
}

rest_down() {
  for file in "$ROOT"/pid/slurmrestd*; do stop "$(basename "$file")"; done
}

status() {
  local pid
  for file in "$ROOT"/pid/*; do
    pid=$(cat "$file")
    printf '%-20s %8s %s\n' "$(basename "$file")" "$pid" "$(lives "$pid" && echo up || echo dead)"
  done
  sinfo
}

case ${1:-} in
  up) up ;;
  down) down ;;
  status) status ;;
  env) echo "export SLURM_CONF=$SLURM_CONF" ;;
  configure) configure ;;    # after other variables were set; slurmctld reads most of it when it starts
  guard)    # ends the cluster and removes its folder once standard input is closed, in whatever way that comes about
    cat >/dev/null
    down
    [ -n "${SLURMCI_KEEP:-}" ] || rm -rf "$ROOT"
    ;;
  kill-ctld) stop slurmctld KILL ;;
  start-ctld) start_ctld ;;
  stop-ctld) stop slurmctld ;;
  kill-slurmd) stop "slurmd-${2:?node}" KILL ;;
  start-slurmd) start_slurmd "${2:?node}" ;;
  stop-dbd) stop slurmdbd ;;
  start-dbd) start_dbd ;;
  rest-up) rest_up "${2:?user}" ;;
  rest-down) rest_down ;;
  *)
    sed -nE '/^case/,/^esac/ s/^  ([a-z-]+)\).*/\1/p' "${BASH_SOURCE[0]}" | paste -sd ' ' >&2
    exit 2
    ;;
esac
