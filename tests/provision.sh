#!/bin/sh
# Installs from Debian or Ubuntu what some tests need beyond Python. Without root it says what is skipped, once.
set -eu
missing=""
command -v Rscript >/dev/null 2>&1 || missing="$missing r-base-core"
Rscript -e 'quit(status = !requireNamespace("IRkernel", quietly = TRUE))' >/dev/null 2>&1 || missing="$missing r-cran-irkernel"
command -v chromium >/dev/null 2>&1 || missing="$missing chromium"
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
  echo "Not root on Debian or Ubuntu: tests that need$missing are skipped."
  exit 0
fi
echo "Installing$missing for the tests"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
# shellcheck disable=SC2086 # a list of package names
if ! { apt-get -q -o DPkg::Lock::Timeout=600 update && apt-get -q -o DPkg::Lock::Timeout=600 install -y --no-install-recommends $missing; } >"$log" 2>&1; then
  tail -n 20 "$log"
  echo "Could not install$missing; the tests that need them are skipped."
fi
rm -f "$log"
