#!/bin/bash
# Starts what `submit` has put next to this file. Its words are read, never evaluated; only setup.sh, the site's own lines, is run.
set -u
umask_before=$(umask)
cd "$(dirname "$0")" || exit 1
staged=$PWD

# failed WHY: reports for the card if the session itself could not. WHY is one of the texts below.
failed() {
  grep -qs '"state": "failed"' "$staged/status.json" && exit 1
  printf 'lossi: %s\n' "$1" >&2
  # Over the old file, which has this size: on a full disk a new one would be empty.
  printf '%-8192s' "{\"state\": \"failed\", \"why\": \"$1\", \"log\": []}" 1<>"$staged/status.json"
  exit 1
}

# Variables that change how the environment's programs start must not reach them.
for name in $(compgen -e); do
  case $name in
    PYTHON* | LD_PRELOAD | RUBYOPT | RUBYLIB | GEM_* | BUNDLE_* | JUPYTER* | APPTAINER_BIND* | SINGULARITY_BIND* | SLURM_JWT) unset "$name" ;;
  esac
done
export PYTHONNOUSERSITE=1

set +u
# shellcheck source=/dev/null
. "$staged/setup.sh" || failed "the set-up of this site failed; see the end of output.log"
set -u
umask "$umask_before"
cd "$staged" || exit 1

scratch=$(cat scratch)
# shellcheck disable=SC2016 # replaces these two names and nothing else
{
  scratch=${scratch//'$SLURM_JOB_ID'/${SLURM_JOB_ID:-0}}
  scratch=${scratch//'$USER'/$(id -un)}
}
if [ -n "$scratch" ] && mkdir -p "$scratch" && [ -w "$scratch" ]; then
  TMPDIR=$scratch
fi
private=$(mktemp -d "${TMPDIR:-/tmp}/lossi-session.XXXXXXXX") || failed "no space for temporary files on this node"
export TMPDIR=$private APPTAINER_WORKDIR=$private

# If the node has Lossi too, `lossi` inside the session reaches it here; a socket's path must be short.
relay=
interpreter=$(cat interpreter)
if [ -x "$interpreter" ] && mkdir -m 700 "$private/tmp"; then
  (
    # Leave the cores to Jupyter until it answers.
    until grep -q '"state": "ready"' status.json 2>/dev/null; do sleep 1; done
    exec "$interpreter" -I -m lossi.ood.relay "$private/tmp/lossi.socket" "$staged/session.json" </dev/null
  ) &
  relay=$!
fi
LOSSI_RELAY=
if [ -n "$relay" ]; then
  LOSSI_RELAY=$private/tmp/lossi.socket
  grep -q '"kind": "apptainer"' session.json && LOSSI_RELAY=/tmp/lossi.socket
fi
export LOSSI_RELAY

# A container starts with a clean environment; this passes on variables by name.
for name in $(compgen -e | grep -E '^(SLURM|LOSSI|MLFLOW|OMP|MKL|OPENBLAS|CUDA_VISIBLE|NVIDIA|ROCR|HIP|HSA|LC)_[A-Za-z0-9_]*$|^(GPU_DEVICE_ORDINAL|TZ|[A-Za-z]*_(PROXY|proxy))$'); do
  export "APPTAINERENV_$name=${!name}"
done

words=()
while IFS= read -r -d '' word; do
  words+=("$word")
done <words
ports=()
read -r -d '' -a ports <<<"${LOSSI_PORTS:-}" || :
if [ "${words[0]}" = apptainer ] && ! command -v apptainer >/dev/null; then
  [ -z "$relay" ] || kill "$relay" 2>/dev/null
  rm -rf "$private"
  failed "no Apptainer on this node: please tell your site's support"
fi

child='' stopped=''
# shellcheck disable=SC2329
stop() {
  stopped=yes
  [ -z "$child" ] || kill -TERM "$child" 2>/dev/null
}
trap stop TERM INT HUP
"${words[@]}" "$LOSSI_HOST" "${ports[@]}" &
child=$!
while :; do
  wait "$child"
  code=$?
  kill -0 "$child" 2>/dev/null || break
done
[ -z "$relay" ] || kill "$relay" 2>/dev/null
rm -rf "$private"
# After a stop, the container may be gone before the session could report: its last report holds.
if [ "$code" -ne 0 ] && [ -z "$stopped" ]; then
  grep -q '"state": "ready"' "$staged/status.json" && failed "it ended unexpectedly; see the end of output.log"
  failed "the environment could not be started; see the end of output.log"
fi
