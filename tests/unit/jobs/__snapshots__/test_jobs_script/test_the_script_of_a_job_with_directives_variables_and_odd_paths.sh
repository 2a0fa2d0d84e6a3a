#!/bin/sh
#SBATCH --time=60
#SBATCH --array=0-9999%50
# Started by the scheduler once per task of a Lossi job. Only the next lines differ between jobs.
job_id=01aryz6s41tsv4rrffq69g5fav
job_directory='/scratch/it'"'"'s $(here) `now`/50% ?/ä'
tasks=10000
kind=apptainer
export A='$HOME; "'"'"''
export B='two
lines'
set -- apptainer exec --bind '/scratch/it'"'"'s $(here) `now`/50% ?/ä:/scratch/it'"'"'s $(here) `now`/50% ?/ä' '/images/a b.sif' python3 '/scratch/it'"'"'s $(here) `now`/50% ?/ä/runner.pyz' run --job '/scratch/it'"'"'s $(here) `now`/50% ?/ä'
# ---- From here on all scripts are the same. "$@" starts the runner; this script adds task and attempt. ----
set -u
: "${PATH:=/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin}"
export PATH
if [ -z "${HOME:-}" ]; then
    HOME=$(getent passwd "$(id -u)" 2>/dev/null | cut -d: -f6)
    : "${HOME:=/}"
fi
export HOME
umask 027
# What the submitting process or the portal carries must not reach the environment's Python.
unset PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONUSERBASE PYTHONPLATLIBDIR LD_PRELOAD
unset RUBYOPT RUBYLIB GEM_HOME GEM_PATH BUNDLE_GEMFILE BUNDLE_PATH BUNDLE_BIN_PATH BUNDLER_VERSION SECRET_KEY_BASE
PYTHONNOUSERSITE=1
export PYTHONNOUSERSITE

fail() {
    printf 'lossi: %s\n' "$1" >&2
    exit "$2"
}

task=${SLURM_ARRAY_TASK_ID:-${LOSSI_TASK:-0}}
case $task in
    '' | *[!0-9]* | 0?*) fail "'$task' is not the number of a task" 2 ;;
esac
[ "$task" -lt "$tasks" ] || fail "this job has $tasks tasks, there is no task $task" 2
attempt=${SLURM_RESTART_COUNT:-0}
case $attempt in
    '' | *[!0-9]* | 0?*) attempt=0 ;;
esac
attempt=$((attempt + 1))

cd "$job_directory" || fail "the job directory $job_directory cannot be entered: was it removed?" 1
folder=tasks/$task
mkdir -p "$folder" || fail "cannot make $job_directory/$folder" 1
exec >>"$folder/log" 2>&1
rm -f "$folder/exit.json" # of an earlier attempt

LOSSI_JOB_ID=$job_id
LOSSI_TASK=$task
export LOSSI_JOB_ID LOSSI_TASK
workdir=
if [ "$kind" = apptainer ]; then
    # The container starts with a clean environment and a /tmp of its own, which without this would be a few MiB of memory.
    workdir=$(mktemp -d "${TMPDIR:-/tmp}/lossi-$task.XXXXXXXX") || fail "cannot make a folder in ${TMPDIR:-/tmp}" 1
    APPTAINER_WORKDIR=$workdir
    export APPTAINER_WORKDIR
    # Only names can be in this list, so there is nothing in it for `eval` to run.
    for name in $(env | sed -nE 's/^((SLURM|LOSSI|MLFLOW|OMP|MKL|OPENBLAS|CUDA_VISIBLE|NVIDIA|ROCR|HIP|HSA)_[A-Z0-9_]*|GPU_DEVICE_ORDINAL|TZ|[A-Za-z]*_(PROXY|proxy))=.*/\1/p'); do
        [ "$name" = SLURM_JWT ] || eval "export APPTAINERENV_$name=\"\${$name-}\""
    done
fi
started=$(date -u +%Y-%m-%dT%H:%M:%SZ)
began=$(date +%s)

# A signal interrupts `wait`; the runner is told to stop (always by TERM) and waited for again until it has really ended.
child=
stop=
interrupted=
# shellcheck disable=SC2329 # the traps call it
forward() {
    interrupted=1
    : "${stop:=$1}"
    [ -z "$child" ] || kill -TERM "$child" 2>/dev/null
}
trap 'forward TERM' TERM
trap 'forward INT' INT
trap 'forward USR1' USR1
"$@" --task "$task" --attempt "$attempt" </dev/null &
child=$!
[ -z "$stop" ] || kill -TERM "$child" 2>/dev/null
status=
while :; do
    interrupted=
    wait "$child"
    result=$?
    # 127 after a first answer: it had been waited for already, and the signal came between.
    if [ -z "$status" ] || [ "$result" -ne 127 ]; then
        status=$result
    fi
    [ -n "$interrupted" ] || break
done
trap '' TERM INT USR1

if [ ! -f "$folder/exit.json" ]; then
    # The runner could not write how it ended: it was killed, or never started. Only numbers and fixed words go into the file.
    state=failed
    signal=null
    if [ "$status" -gt 128 ]; then
        signal=$((status - 128))
        reason="the runner was killed by signal $signal"
    elif [ "$status" -eq 126 ] || [ "$status" -eq 127 ]; then
        reason="the environment could not be started; the end of the log says why"
    elif [ "$status" -eq 0 ]; then
        status=1
        reason="the runner ended without leaving its account; is the filesystem full?"
    else
        reason="the runner ended with exit code $status and left no account; the end of the log may say why"
    fi
    case $stop in
        TERM | INT) state=cancelled reason="stopped before the runner could say how far it was" ;;
        USR1) state=timed_out reason="stopped shortly before its time limit" ;;
    esac
    host=$(uname -n | tr -cd 'A-Za-z0-9.-')
    beside=$folder/.exit.json.$$
    if printf '{"task":%d,"state":"%s","exit_code":%d,"signal":%s,"reason":"%s","started":"%s","ended":"%s","elapsed_s":%d,"host":"%s","attempt":%d,"written_by":"script","format":1}\n' \
        "$task" "$state" "$status" "$signal" "$reason" "$started" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" \
        "$(($(date +%s) - began))" "$host" "$attempt" >"$beside"; then
        mv -f "$beside" "$folder/exit.json"
    else
        rm -f "$beside"
        printf 'lossi: cannot write %s/exit.json\n' "$folder" >&2
    fi
fi
[ -z "$workdir" ] || rm -rf "$workdir"
exit "$status"
