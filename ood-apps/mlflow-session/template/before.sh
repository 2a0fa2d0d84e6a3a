# shellcheck shell=bash disable=SC2154,SC2034,SC2016
# Sourced by Open OnDemand's job script in the session's folder; it defines host and the functions.
chmod 700 . # it has the mode of the copied template
rm -f ready failure.txt
# A few ports in the site's range that look free; MLflow's start decides which one it gets. find_port never ends if none is free,
# and not every function that it calls is exported: source_helpers defines them.
ports=$(timeout 10 bash -c 'declare -F source_helpers >/dev/null && source_helpers; for _ in 1 2 3; do find_port "$1" || exit; done' find_port "$host")
password=$(create_passwd 32)
mode=starting
export host ports password mode
