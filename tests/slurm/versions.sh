#!/bin/bash
# Slurm 24.11 (Debian 13) and 26.05 with PySlurm (Debian 14) next to this machine's own: each in a Debian system in a folder, made
# once per machine, with a cluster of its own while the tests in tests/slurm_versions run.
#   versions.sh [test]     all of it, and everything is taken down again
#   versions.sh record     write what the commands print of all kinds of jobs to tests/unit/slurm/recorded
#   versions.sh up|down    for looking around; `up` prints the file that describes the clusters
# LOSSI_CHROOTS is where the systems are kept (/srv/slurm-chroots). What follows `test` goes to pytest.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
chroots=${LOSSI_CHROOTS:-/srv/slurm-chroots}
python=${PYTHON:-$here/../../.venv/bin/python}
users="lossi-tester1 lossi-tester2"
suites="trixie forky"
declare -A port=([trixie]=27000 [forky]=29000) # where a search for free ones begins
declare -A release=([trixie]=24.11 [forky]=26.05)
declare -A extra=([trixie]="" [forky]=pyslurm)

if ! "$here/chroot.sh" possible; then
  echo "Not root on a machine with a Debian archive: the tests with Slurm 24.11 and 26.05 are skipped."
  exit 0
fi

# The folder's name differs, because a cluster tells its processes from others by it.
cluster() { # SUITE ACTION...
  local suite=$1
  shift
  "$here/chroot.sh" run "$chroots/$suite" env SLURMCI_ROOT="/srv/slurm-$suite" SLURMCI_PORT="${port[$suite]}" \
    SLURMCI_USERS="$users" /opt/ci/cluster.sh "$@" 8>&-
}

free_ports() { # FIRST   the first base whose ports nobody listens on
  local base offset
  for ((base = $1; base < $1 + 2000; base += 200)); do
    for offset in 6 17 19 20 101 102 151 152 191; do
      if (exec 3<>"/dev/tcp/127.0.0.1/$((base + offset))") 2>/dev/null; then continue 2; fi
    done
    echo "$base"
    return
  done
  echo "No free ports from $1 on" >&2
  return 1
}

up() {
  local suite user job jobs=() all=()
  for user in $users; do
    # shellcheck disable=SC2016 # the inner shell expands it
    flock /run/lock/lossi-tests-users sh -c 'id "$1" >/dev/null 2>&1 || useradd --create-home --shell /bin/bash "$1"' sh "$user"
  done
  for suite in $suites; do
    [ -e "$chroots/$suite" ] || echo "Making $chroots/$suite, once (one to three minutes)"
    # shellcheck disable=SC2086 # nothing or one word
    "$here/chroot.sh" make "$suite" "$chroots/$suite" ${extra[$suite]} &
    jobs+=($!)
  done
  for job in "${jobs[@]}"; do wait "$job"; done
  down
  for suite in $suites; do
    # shellcheck disable=SC2086 # a list of users
    "$here/chroot.sh" mount "$chroots/$suite" $users
    install -m 755 "$here/cluster.sh" "$chroots/$suite/opt/ci/cluster.sh"
    "$here/chroot.sh" wrap "$chroots/$suite" "/srv/slurm-$suite/etc/slurm.conf" "$chroots/$suite.bin"
    port[$suite]=$(free_ports "${port[$suite]}")
    cluster "$suite" up >"$chroots/$suite.up.log" 2>&1 ||
      { tail -n 20 "$chroots/$suite.up.log" "$chroots/$suite/srv/slurm-$suite/log"/*.out; return 1; }
    for user in $users; do cluster "$suite" rest-up "$user" >>"$chroots/$suite.up.log"; done
    all+=("$(printf '{"suite": "%s", "release": "%s", "root": "%s", "conf": "%s", "bin": "%s", "rest": "%s", "sockets": "%s", "python": "%s"}' \
      "$suite" "${release[$suite]}" "$chroots/$suite" "/srv/slurm-$suite/etc/slurm.conf" "$chroots/$suite.bin" "http://127.0.0.1:$((port[$suite] + 20))" \
      "$chroots/$suite/srv/slurm-$suite/rest-{user}/sock" "${extra[$suite]:+/opt/pyslurm/bin/python}")")
  done
  (IFS=,; printf '[%s]\n' "${all[*]}") >"$chroots/clusters.json"
}

down() {
  local suite file
  rm -f "$chroots/clusters.json"
  for suite in $suites; do
    if [ -d "$chroots/$suite/srv/slurm-$suite" ]; then
      # After a restart of the machine a number may be somebody else's.
      for file in "$chroots/$suite/srv/slurm-$suite/pid"/*; do
        [ "$(readlink "/proc/$(cat "$file" 2>/dev/null)/root" 2>/dev/null)" = "$chroots/$suite" ] || rm -f "$file"
      done
      # shellcheck disable=SC2086 # a list of users
      "$here/chroot.sh" mount "$chroots/$suite" $users
      cluster "$suite" down >/dev/null 2>&1 || true
      rm -rf "$chroots/$suite/srv/slurm-$suite"
    fi
    [ ! -d "$chroots/$suite" ] || "$here/chroot.sh" umount "$chroots/$suite"
  done
}

action=${1:-test}
shift || true
mkdir -p "$chroots"
exec 8>"$chroots/lock" # one at a time: the ports are fixed
flock 8
case $action in
  test)
    trap down EXIT
    up
    cd "$here/../.."
    LOSSI_SLURM_VERSIONS=$chroots/clusters.json "$python" -m pytest tests/slurm_versions "$@"
    ;;
  record)
    trap down EXIT
    up
    cd "$here/../.."
    PYTHONPATH=tests LOSSI_SLURM_VERSIONS=$chroots/clusters.json "$python" tests/slurm_versions/record.py tests/unit/slurm/recorded
    ;;
  up)
    trap 'if [ $? -ne 0 ]; then down; fi' EXIT
    up
    echo "$chroots/clusters.json"
    ;;
  down) down ;;
  *)
    echo "usage: $0 [test [PYTEST OPTIONS] | record | up | down]" >&2
    exit 2
    ;;
esac
