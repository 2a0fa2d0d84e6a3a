# shellcheck shell=bash disable=SC2154,SC2034,SC2016
# Sourced by Open OnDemand's job script in the session's folder, with `host` set and its functions loaded.
chmod 700 . # copying the template has given it the template's mode
rm -f ready failure.txt
# A few ports that look free, in the site's range: which of them is really ours is decided where MLflow starts. The search never
# ends where none is free, and not all that it calls is exported: source_helpers defines it.
ports=$(timeout 10 bash -c 'declare -F source_helpers >/dev/null && source_helpers; for _ in 1 2 3; do find_port "$1" || exit; done' find_port "$host")
password=$(create_passwd 32)
mode=starting
export host ports password mode
