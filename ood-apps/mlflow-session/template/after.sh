# shellcheck shell=bash disable=SC2154,SC2034
# Sourced by Open OnDemand's job script while script.sh runs; afterwards Open OnDemand writes the connection file and the card says
# "running". The process with the listening socket writes `ready` into this folder, which only the user can access, so no other
# listener on the port can pass for it. Migrating an old store may take a while.
for ((waited = 0; waited < 4 * 3600; waited++)); do
  [[ ! -s ready ]] || break
  kill -0 "$SCRIPT_PID" 2>/dev/null || break
  sleep 0.25
done
if [[ -s ready ]]; then
  read -r port mode <ready
  export port mode
else
  [[ -s failure.txt ]] || echo "MLflow did not start; see output.log." >failure.txt
  cat failure.txt >&2
  clean_up 1
fi
