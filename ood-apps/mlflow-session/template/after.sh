# shellcheck shell=bash disable=SC2154,SC2034
# Sourced by Open OnDemand's job script once script.sh runs; behind it the connection file is written and the card says "running".
# `ready` is written by the process that holds the listening socket, into this folder that is the user's alone: no other listener
# on the same port can be taken for it. An old store may take a while to be migrated.
for ((waited = 0; waited < 4 * 3600; waited++)); do
  [[ ! -s ready ]] || break
  kill -0 "$SCRIPT_PID" 2>/dev/null || break
  sleep 0.25
done
if [[ -s ready ]]; then
  read -r port mode <ready
  export port mode
else
  [[ -s failure.txt ]] || echo "MLflow did not start; output.log says more." >failure.txt
  cat failure.txt >&2
  clean_up 1
fi
