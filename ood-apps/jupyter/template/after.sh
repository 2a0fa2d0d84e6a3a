#!/bin/bash
# Sourced by Open OnDemand's job script while script.sh runs: waits until Jupyter answers at a socket of its own. Open OnDemand
# writes the variables set here into connection.yml (0600); without them the session ends and its card says why.
# shellcheck disable=SC2154,SC2034
while [ ! -f connection.session ]; do
  if ! kill -0 "$SCRIPT_PID" 2>/dev/null; then
    clean_up 1
  fi
  sleep 0.1
done
{
  IFS= read -r port
  IFS= read -r password
  IFS= read -r interface
} <connection.session
rm -f connection.session
