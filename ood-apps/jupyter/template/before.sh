#!/bin/bash
# Sourced by Open OnDemand's job script before script.sh starts; host and find_port are its own. A few ports that look free, in the
# site's range: which of them is really ours is decided where Jupyter starts. Its search never ends where none is free,
# and not all that it calls is exported: source_helpers defines it.
# shellcheck disable=SC2154
chmod 700 . # copying the template has given it the template's mode
LOSSI_HOST=$host
# shellcheck disable=SC2016
LOSSI_PORTS=$(timeout 10 bash -c 'declare -F source_helpers >/dev/null && source_helpers; for _ in 1 2 3; do find_port "$1" || exit; done' find_port "$LOSSI_HOST")
export LOSSI_HOST LOSSI_PORTS
# The scheduler tells all processes of the job to end; when this one, the first, is gone, the others are killed at once. So it waits
# until the session has put its things away.
trap 'trap "" TERM; if [ -n "${SCRIPT_PID:-}" ]; then kill "$SCRIPT_PID" 2>/dev/null; wait "$SCRIPT_PID"; fi; exit 143' TERM
