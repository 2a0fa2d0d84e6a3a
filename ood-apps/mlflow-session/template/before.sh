# shellcheck shell=bash disable=SC2154,SC2034,SC2016
# Sourced by Open OnDemand's job script in the session's folder, with `host` set and its functions loaded.
rm -f ready failure.txt
# Its search never ends where no port is free. Which port it is in the end is decided where MLflow starts.
port=$(timeout 20 bash -c 'find_port "$1"' find_port "$host") || port=
password=$(create_passwd 32)
mode=starting
export host port password mode
