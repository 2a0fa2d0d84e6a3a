#!/bin/bash
# Sourced by Open OnDemand's job script, which defines host and find_port, before script.sh. Finds a few ports in the site's range
# that look free; Jupyter's start decides which one it gets. find_port never ends if none is free, and not every function that it
# calls is exported: source_helpers defines them.
# shellcheck disable=SC2154
chmod 700 . # it has the mode of the copied template
LOSSI_HOST=$host
# shellcheck disable=SC2016
LOSSI_PORTS=$(timeout 10 bash -c 'declare -F source_helpers >/dev/null && source_helpers; for _ in 1 2 3; do find_port "$1" || exit; done' find_port "$LOSSI_HOST")
export LOSSI_HOST LOSSI_PORTS
# The scheduler signals all processes of the job, and kills the others when this one, the first, has ended. So it waits until the
# session has cleaned up.
trap 'trap "" TERM; if [ -n "${SCRIPT_PID:-}" ]; then kill "$SCRIPT_PID" 2>/dev/null; wait "$SCRIPT_PID"; fi; exit 143' TERM
