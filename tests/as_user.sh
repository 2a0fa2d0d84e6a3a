#!/bin/bash
# As root: clones this repository as an ordinary user into an empty folder and runs `make demo` there, as a new user would.
set -euo pipefail
user=lossi-tester
id "$user" >/dev/null 2>&1 || useradd --create-home --shell /bin/bash "$user"
source=$(cd "$(dirname "$0")/.." && pwd)
home=$(getent passwd "$user" | cut -d: -f6)
# An interpreter that this user may execute: root's own may be in a folder that is closed to others.
python=""
for candidate in python3.13 python3.12 python3.11 python3; do
  path=$(PATH=/usr/local/bin:/usr/bin:/bin command -v "$candidate" || true)
  if [ -n "$path" ] && su "$user" -c "'$path' -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))'" 2>/dev/null; then
    python=$path
    break
  fi
done
if [ -z "$python" ]; then
  if command -v apt-get >/dev/null 2>&1; then
    echo "Installing python3-venv for the ordinary user's turn"
    { apt-get -q -o DPkg::Lock::Timeout=600 update && DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=600 install -y --no-install-recommends python3-venv; } >/dev/null
    python=/usr/bin/python3
  else
    echo "No Python ≥ 3.11 with venv that an ordinary user may run: the demo as an ordinary user is skipped."
    exit 0
  fi
fi
place=$(mktemp -d "$home/fresh.XXXXXX")
trap 'rm -rf "$place"' EXIT
git -c safe.directory="$source" -c safe.directory="$source/.git" clone --quiet --no-local "$source" "$place/lossi"
chown -R "$user:" "$place"
# The configuration of package clients (certificates, mirrors) travels; nothing else of root's environment does.
keep=$(env | grep -E '^(PIP_|SSL_CERT|REQUESTS_CA|https?_proxy|HTTPS?_PROXY|no_proxy|NO_PROXY|OPENBLAS_)' | tr '\n' ' ' || true)
# shellcheck disable=SC2086 # a list of assignments
su "$user" -c "cd '$place/lossi' && env -i HOME='$home' USER='$user' LANG=C.UTF-8 PATH=/usr/local/bin:/usr/bin:/bin $keep make demo SERVE=0 PYTHON='$python'"
