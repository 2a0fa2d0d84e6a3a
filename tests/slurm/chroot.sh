#!/bin/bash
# A Debian system in a folder, with Slurm in it, on a Debian or Ubuntu host and as root:
#   chroot.sh possible                   whether apt of this machine has a Debian archive to make one from
#   chroot.sh make SUITE DIR [pyslurm]   make it beside DIR and rename it when it is complete; nothing if it is there
#   chroot.sh mount DIR [USER...]        and see to it that it knows these users under the ids that they have here
#   chroot.sh umount DIR
#   chroot.sh run DIR COMMAND...         as root inside, with a cleaned environment
#   chroot.sh wrap DIR CONF BIN          write host commands sbatch, squeue, ... that any user may call
# Nothing outside DIR and $DIR.* is changed, but that debootstrap is installed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
recipe=1 # raised when a chroot that was made before will no longer do

in_chroot() { # DIR COMMAND...
  local dir=$1 pass
  shift
  mapfile -t pass < <(env | grep -E '^(https?_proxy|HTTPS?_PROXY|no_proxy|NO_PROXY|PIP_INDEX_URL)=' || true)
  chroot "$dir" env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive "${pass[@]}" "$@"
}

mount_in() { # DIR [USER...]   the homes too, so that a job's files are where the host looks for them
  local dir=$1 place user
  shift
  for place in proc sys dev dev/pts dev/shm home; do
    mountpoint -q "$dir/$place" || mount --bind "/$place" "$dir/$place"
  done
  for user in "$@"; do
    [ "$(in_chroot "$dir" id -u "$user" 2>/dev/null)" = "$(id -u "$user")" ] ||
      in_chroot "$dir" useradd --no-create-home --shell /bin/bash --uid "$(id -u "$user")" "$user"
  done
}

umount_in() { # DIR
  local place
  for place in home dev/shm dev/pts dev sys proc; do
    if mountpoint -q "$1/$place"; then umount "$1/$place" || umount --lazy "$1/$place"; fi
  done
}

discard() { # DIR   never through a mount
  [ -e "$1" ] || return 0
  umount_in "$1"
  if grep -q " $1/" /proc/self/mounts; then
    echo "Something is mounted in $1: not removed" >&2
    return 1
  fi
  rm -rf --one-file-system "$1"
}

make_chroot() { # SUITE DIR [pyslurm]
  local suite=$1 dir=$2 extra=${3:-} new=$2.new log=$2.log mirror security script
  if [ "$(cat "$dir/opt/ci/complete" 2>/dev/null)" = "$recipe" ]; then return 0; fi
  mkdir -p "$(dirname "$dir")"
  exec 9>"$dir.lock"
  flock 9
  if [ "$(cat "$dir/opt/ci/complete" 2>/dev/null)" = "$recipe" ]; then return 0; fi
  discard "$new"
  discard "$dir"
  mirror=$(archive debian)
  security=$(archive debian-security)
  # Two systems are made at once: the second waits for what the first installs.
  (
    flock 7
    command -v debootstrap >/dev/null || {
      apt-get -q -o DPkg::Lock::Timeout=600 update
      DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=600 install -y --no-install-recommends debootstrap
    }
  ) 7>/run/lock/lossi-tests-debootstrap >"$log" 2>&1
  script=/usr/share/debootstrap/scripts/$suite
  [ -e "$script" ] || script=/usr/share/debootstrap/scripts/sid # a suite that is newer than this debootstrap
  debootstrap --variant=minbase --include=ca-certificates "$suite" "$new" "$mirror" "$script" >"$log" 2>&1
  echo "deb $mirror $suite main" >"$new/etc/apt/sources.list"
  # A snapshot of an archive may be older than its Release file allows; a folder that is thrown away needs no fsync.
  echo 'Acquire::Check-Valid-Until "false";' >"$new/etc/apt/apt.conf.d/90ci"
  echo force-unsafe-io >"$new/etc/dpkg/dpkg.cfg.d/ci"
  if [ "$suite" != forky ] && [ -n "$security" ]; then
    printf 'deb %s %s-updates main\ndeb %s %s-security main\n' "$mirror" "$suite" "$security" "$suite" >>"$new/etc/apt/sources.list"
  fi
  printf '#!/bin/sh\nexit 101\n' >"$new/usr/sbin/policy-rc.d" # packages start nothing
  chmod 755 "$new/usr/sbin/policy-rc.d"
  cp /etc/hosts "$new/etc/hosts"
  cp -L /etc/resolv.conf "$new/etc/resolv.conf" 2>/dev/null || true
  cp /usr/local/share/ca-certificates/* "$new/usr/local/share/ca-certificates/" 2>/dev/null || true
  trap 'umount_in "$new"' EXIT
  mount_in "$new"
  {
    in_chroot "$new" update-ca-certificates
    in_chroot "$new" apt-get -q update
    # shellcheck disable=SC2046 # a list of package names
    in_chroot "$new" apt-get -q install -y --no-install-recommends slurm-wlm slurm-client slurmctld slurmd slurmdbd slurmrestd \
      munge slurm-wlm-jwt-plugin slurm-wlm-mysql-plugin mariadb-server mariadb-client bc procps python3 \
      $([ "$extra" != pyslurm ] || echo libslurm-dev python3-dev python3-venv gcc)
    mkdir -p "$new/opt/ci"
    if [ "$extra" = pyslurm ]; then
      cp "$here/pyslurm.sh" "$new/opt/ci/"
      in_chroot "$new" bash /opt/ci/pyslurm.sh
    fi
    in_chroot "$new" apt-get -q clean
  } >>"$log" 2>&1
  umount_in "$new"
  trap - EXIT
  echo "$recipe" >"$new/opt/ci/complete"
  mv "$new" "$dir"
}

archive() { # debian|debian-security   the one that this host's own apt uses, or nothing; sources come in two forms
  local files=()
  mapfile -t files < <(find /etc/apt/sources.list /etc/apt/sources.list.d \( -name '*.list' -o -name '*.sources' \) 2>/dev/null)
  [ ${#files[@]} -eq 0 ] || { grep -hvE '^[[:space:]]*#' "${files[@]}" | grep -oE 'https?://[^ ]+' | grep -E "/$1/?\$" | head -n 1; } || true
}

wrap() { # DIR CONF BIN
  local dir=$1 conf=$2 bin=$3 command
  mkdir -p "$bin"
  for command in sbatch squeue sacct scontrol scancel sinfo srun salloc sacctmgr sstat sdiag sprio; do
    cat >"$bin/$command" <<W
#!/bin/sh
# The $command of $dir for whoever calls it. A user namespace in which only the caller's own id is mapped lets an ordinary
# user change the root folder, and munge still sees who it is.
export SLURM_CONF=$conf
if [ "\$(id -u)" = 0 ]; then exec /usr/sbin/chroot "$dir" /usr/bin/$command "\$@"; fi
place=\$PWD
[ -d "$dir\$place" ] || place=/
exec /usr/bin/unshare --map-current-user --root="$dir" --wd="\$place" /usr/bin/$command "\$@"
W
    chmod 755 "$bin/$command"
  done
}

action=${1:-}
shift || true
case $action in
  possible) [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && [ -n "$(archive debian)" ] ;;
  make) make_chroot "$@" ;;
  mount) mount_in "$@" ;;
  umount) umount_in "$1" ;;
  run) in_chroot "$@" ;;
  wrap) wrap "$@" ;;
  *)
    echo "usage: $0 possible | make SUITE DIR [pyslurm] | mount DIR [USER...] | umount DIR | run DIR COMMAND... | wrap DIR CONF BIN" >&2
    exit 2
    ;;
esac
