#!/bin/sh
# Installs Lossi on a portal's host from an unpacked release: makes an environment from the wheels next to this file, without a
# network if they are complete, then runs `lossi install`. Takes all options of `lossi install`:
#
#   ./install.sh --dry-run      show what would change
#   ./install.sh                show it, ask, do it
#
# PYTHON names the interpreter (default: the first suitable one of this machine). All users must be able to run it.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
umask 022
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV

home=/opt/lossi prefix='' before=''
for word in "$@"; do
  case $before in
    --home) home=$word ;;
    --prefix) prefix=$word ;;
  esac
  case $word in
    --home=*) home=${word#*=} ;;
    --prefix=*) prefix=${word#*=} ;;
  esac
  before=$word
done
case $prefix in
  '' | /*) ;;
  *) prefix=$PWD/$prefix ;;
esac
home=${prefix%/}/${home#/}

say() {
  printf 'install.sh: %s\n' "$1" >&2
}

needed=''
[ ! -r "$here/wheelhouse/PYTHON" ] || IFS= read -r needed <"$here/wheelhouse/PYTHON"
fits() {
  "$1" -c 'import ensurepip, sys, venv
version = "%d.%d" % sys.version_info[:2]
sys.exit(sys.version_info < (3, 11) or (sys.argv[1] or version) != version)' "$needed" >/dev/null 2>&1
}
python=''
for candidate in ${PYTHON:+"$PYTHON"} "/usr/bin/python${needed:-3}" /usr/bin/python3 /usr/bin/python3.11 /usr/bin/python3.12 \
  /usr/bin/python3.13 /usr/bin/python3.14 "/usr/local/bin/python${needed:-3}" /usr/local/bin/python3; do
  if fits "$candidate"; then
    python=$candidate
    break
  fi
  if [ -n "${PYTHON:-}" ]; then break; fi
done
if [ -z "$python" ]; then
  say "no Python ${needed:-3.11 or later} with venv was found${PYTHON:+ as $PYTHON}"
  say "install it (Debian and Ubuntu: python3-venv, RHEL: python3.11), or set PYTHON=/path/to/python"
  exit 1
fi

wheel=''
for wheel in "$here"/lossi-*.whl; do :; done
if [ ! -r "$wheel" ] || [ ! -r "$here/run.lock" ]; then
  say "this release is not complete: unpack it again"
  exit 1
fi
version=${wheel##*/lossi-}
version=${version%%-*}
digest=$({ cat -- "$wheel" "$here/run.lock"; "$python" -VV; printf '%s\n' "$python"; } | sha256sum | cut -c 1-12)
environment=$home/environments/$version-$digest

made=''
in_use() {
  [ -r "$home/current/manifest.json" ] && grep -qF -- "/environments/$version-$digest/" "$home/current/manifest.json"
}
tidy() { # remove the environment if no version uses it
  if [ -n "$made" ] && ! in_use; then
    rm -rf -- "$environment"
    rmdir -- "$home/environments" "$home" 2>/dev/null || :
  fi
}
trap tidy EXIT
trap 'exit 1' HUP INT TERM
if [ ! -e "$environment/.complete" ]; then
  say "making $environment with $("$python" --version) (a minute or two, once)"
  made=yes
  rm -rf -- "$environment"
  mkdir -p -- "$environment"
  "$python" -m venv "$environment"
  pip() {
    "$environment/bin/python" -m pip --quiet --disable-pip-version-check --no-input install "$@"
  }
  if [ -d "$here/wheelhouse" ]; then
    pip --no-index --find-links "$here/wheelhouse" --require-hashes -r "$here/run.lock"
  else
    pip --require-hashes -r "$here/run.lock"
  fi
  pip --no-index --no-deps "$wheel"
  : >"$environment/.complete"
fi
cd /
"$environment/bin/python" -I -m lossi install "$@"
