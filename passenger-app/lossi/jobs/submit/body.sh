# ---- All scripts are the same from here. "$@" starts the runner; this script adds task and attempt. ----
# Variables of this script begin with lossi_, so that the site's set-up lines do not change them by chance.
set -u
: "${PATH:=/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin}"
export PATH
if [ -z "${HOME:-}" ]; then
    HOME=$(getent passwd "$(id -u)" 2>/dev/null | cut -d: -f6)
    : "${HOME:=/}"
fi
export HOME
umask 027
# Variables of the submitting process or the portal must not reach the environment's Python; a token must reach nobody.
unset PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONUSERBASE PYTHONPLATLIBDIR LD_PRELOAD
unset RUBYOPT RUBYLIB GEM_HOME GEM_PATH BUNDLE_GEMFILE BUNDLE_PATH BUNDLE_BIN_PATH BUNDLER_VERSION SECRET_KEY_BASE SLURM_JWT
PYTHONNOUSERSITE=1
export PYTHONNOUSERSITE
exec 3>&2 5>&1 # 3: the scheduler's log; 5: srun, on the other nodes of a task

fail() {
    printf 'lossi: %s\n' "$1" >&3
    exit "$2"
}
is_number() {
    case $1 in
        '' | *[!0-9]* | 0?* | ??????????*) return 1 ;;
    esac
}

# On the other nodes of a task, srun starts this script with this variable.
lossi_role=${LOSSI_ROLE:-}
unset LOSSI_ROLE
lossi_task=${SLURM_ARRAY_TASK_ID:-${LOSSI_TASK:-0}}
[ "$lossi_role" != rank ] || lossi_task=$LOSSI_TASK
is_number "$lossi_task" || fail "'$lossi_task' is not a task number" 2
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ] && [ "$lossi_role" != rank ]; then
    # A sweep too large for one array has several; the names of the later ones say where they begin.
    lossi_name=${SLURM_JOB_NAME:-}
    lossi_offset=${lossi_name#"lossi-$lossi_job_id+"}
    if [ "$lossi_offset" != "$lossi_name" ] && is_number "$lossi_offset"; then
        lossi_task=$((lossi_task + lossi_offset))
    elif [ "$lossi_name" != "lossi-$lossi_job_id" ] && is_number "${SLURM_ARRAY_TASK_MAX:-}" &&
        [ $((SLURM_ARRAY_TASK_MAX + 1)) -lt "$lossi_tasks" ]; then
        fail "this array has only some of the job's $lossi_tasks tasks, and its name '$lossi_name' does not say which: was it renamed?" 2
    fi
fi
[ "$lossi_task" -lt "$lossi_tasks" ] || fail "this job has $lossi_tasks tasks: there is no task $lossi_task" 2
lossi_attempt=${SLURM_RESTART_COUNT:-0}
is_number "$lossi_attempt" || lossi_attempt=0
lossi_attempt=$((lossi_attempt + 1))
lossi_rank=0
[ "$lossi_role" != rank ] || lossi_rank=$((${SLURM_PROCID:-0} + 1))
[ "$lossi_nodes" -eq 1 ] || [ -n "${SLURM_JOB_ID:-}" ] || fail "this job needs $lossi_nodes nodes, which only Slurm can provide" 2

cd "$lossi_directory" || fail "cannot enter the job directory $lossi_directory: was it removed?" 1
lossi_folder=tasks/$lossi_task
lossi_log=$lossi_folder/log
lossi_exit=exit.json
if [ "$lossi_rank" -gt 0 ]; then
    lossi_log=$lossi_log.rank$lossi_rank
    lossi_exit=exit.rank$lossi_rank.json
fi
mkdir -p "$lossi_folder" || fail "cannot make $lossi_directory/$lossi_folder" 1
true >>"$lossi_log" || fail "cannot write $lossi_directory/$lossi_log" 1
exec >>"$lossi_log" 2>&1
if [ "$lossi_rank" -eq 0 ]; then
    # Files of an earlier attempt. A first attempt may already have been told to stop.
    rm -f "$lossi_folder/exit.json" "$lossi_folder/ranks.jsonl"
    [ "$lossi_attempt" -eq 1 ] || rm -f "$lossi_folder/ending.json" "$lossi_folder/progress.json"
fi
lossi_started=$(date -u +%Y-%m-%dT%H:%M:%SZ)
lossi_began=$(date +%s)

# write_exit_record STATE EXIT_CODE SIGNAL REASON: in place of the runner. Only numbers and fixed words go into the file.
write_exit_record() {
    lossi_partial=$lossi_folder/.$lossi_exit.$$
    if printf '{"task":%d,"state":"%s","exit_code":%d,"signal":%s,"reason":"%s","started":"%s","ended":"%s","elapsed_s":%d,"host":"%s","attempt":%d,"written_by":"script","format":1}\n' \
        "$lossi_task" "$1" "$2" "$3" "$4" "$lossi_started" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" \
        "$(($(date +%s) - lossi_began))" "$(uname -n | tr -cd 'A-Za-z0-9.-')" "$lossi_attempt" >"$lossi_partial" &&
        mv -f "$lossi_partial" "$lossi_folder/$lossi_exit"; then
        :
    else
        rm -f "$lossi_partial"
        printf 'lossi: cannot write %s/%s/%s. The task has %s: %s\n' "$lossi_directory" "$lossi_folder" "$lossi_exit" "$1" "$4" >&3
    fi
}
# Every path from here ends the script here. The exit record of another node goes to srun, and so to the first node.
end() {
    if [ "$lossi_rank" -gt 0 ]; then
        printf '{"rank":%d,"exit":%s}\n' "$lossi_rank" "$(cat "$lossi_folder/$lossi_exit")" >&5
        rm -f "$lossi_folder/$lossi_exit"
    fi
    if [ -n "$lossi_private" ]; then
        rm -rf "$lossi_private"
        [ -z "$lossi_made" ] || rmdir "$lossi_made" 2>/dev/null
    fi
    exit "$1"
}
lossi_private=
lossi_made=

LOSSI_JOB_ID=$lossi_job_id
LOSSI_TASK=$lossi_task
export LOSSI_JOB_ID LOSSI_TASK
if [ -n "${SLURM_JOB_ID:-}" ]; then
    # With sbatch --export=NONE, srun would export nothing; and srun no longer inherits --cpus-per-task.
    SLURM_EXPORT_ENV=ALL
    export SLURM_EXPORT_ENV
    [ -z "${SLURM_CPUS_PER_TASK:-}" ] || { SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK && export SRUN_CPUS_PER_TASK; }
fi
if [ "$lossi_nodes" -gt 1 ]; then
    : "${MASTER_ADDR:=$(uname -n)}" # srun passes on that of the first node
    MASTER_PORT=$((10000 + SLURM_JOB_ID % 20000)) # below the ephemeral ports
    LOSSI_NODES=$lossi_nodes LOSSI_NODE_RANK=$lossi_rank SLURM_NNODES=$lossi_nodes
    # The first node is not part of the step of the others: set what a step over all nodes would have.
    SLURM_NTASKS=$lossi_nodes SLURM_NPROCS=$lossi_nodes SLURM_PROCID=$lossi_rank SLURM_NODEID=$lossi_rank SLURM_LOCALID=0
    export MASTER_ADDR MASTER_PORT LOSSI_NODES LOSSI_NODE_RANK
    export SLURM_NNODES SLURM_NTASKS SLURM_NPROCS SLURM_PROCID SLURM_NODEID SLURM_LOCALID
fi

# shellcheck disable=SC2329 # site_setup calls it, if there is one
set_up() {
    lossi_line=$((lossi_line + 1))
    eval "$1" </dev/null
}
# shellcheck disable=SC2329 # the trap calls it
set_up_ended() {
    trap - EXIT
    cd "$lossi_directory" || exit 1
    printf 'lossi: line %d of the site set-up failed with exit code %d\n' "$lossi_line" "$1"
    set -- "$(($1 ? $1 : 1))"
    write_exit_record failed "$1" null "line $lossi_line of the site set-up failed with exit code $1; the end of the log says why"
    end "$1"
}
lossi_line=0
if [ "$lossi_setup" -gt 0 ]; then
    # These lines may use unset variables, change folder or options, or end the shell.
    set +u
    trap 'set_up_ended $?' EXIT
    site_setup || set_up_ended $?
    trap - EXIT
    set +efx -u
    unset IFS PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONUSERBASE PYTHONPLATLIBDIR SLURM_JWT
    umask 027
    cd "$lossi_directory" || exit 1
fi

if [ -n "$lossi_scratch" ]; then
    lossi_user=$(id -un)
    while :; do
        # shellcheck disable=SC2016 # only these two names are replaced
        case $lossi_scratch in
            *'$SLURM_JOB_ID'*) lossi_scratch=${lossi_scratch%%'$SLURM_JOB_ID'*}${SLURM_JOB_ID:-0}${lossi_scratch#*'$SLURM_JOB_ID'} ;;
            *'$USER'*) lossi_scratch=${lossi_scratch%%'$USER'*}$lossi_user${lossi_scratch#*'$USER'} ;;
            *) break ;;
        esac
    done
    [ -d "$lossi_scratch" ] || lossi_made=$lossi_scratch
    if ! { mkdir -p "$lossi_scratch" && lossi_private=$(mktemp -d "$lossi_scratch/lossi-$lossi_task.XXXXXXXX"); }; then
        lossi_private=
        lossi_made=
        printf 'lossi: this node has no %s for temporary files: using %s\n' "$lossi_scratch" "${TMPDIR:-/tmp}"
    fi
fi
if [ -z "$lossi_private" ] && { [ "$lossi_kind" = apptainer ] || [ "$lossi_nodes" -gt 1 ]; }; then
    if ! lossi_private=$(mktemp -d "${TMPDIR:-/tmp}/lossi-$lossi_task.XXXXXXXX"); then
        write_exit_record failed 1 null "cannot make a temporary folder; the end of the log says why"
        lossi_private=
        end 1
    fi
fi
if [ -n "$lossi_private" ]; then
    TMPDIR=$lossi_private
    export TMPDIR
fi
if [ "$lossi_kind" = apptainer ]; then
    # The container starts with a clean environment and its own /tmp, which without this would be a few MiB of memory.
    APPTAINER_WORKDIR=$lossi_private
    export APPTAINER_WORKDIR
    # The list contains only names, so `eval` runs nothing else.
    for lossi_name in $(env | sed -nE 's/^((SLURM|LOSSI|MLFLOW|OMP|MKL|OPENBLAS|CUDA_VISIBLE|NVIDIA|ROCR|HIP|HSA|MASTER|NCCL|GLOO|UCX|FI)_[A-Z0-9_]*|GPU_DEVICE_ORDINAL|TZ|[A-Za-z]*_(PROXY|proxy))=.*/\1/p'); do
        eval "export APPTAINERENV_$lossi_name=\"\${$lossi_name-}\""
    done
fi

# A signal interrupts `wait`: tell the runner to stop (always with TERM) and wait again until it has really ended.
lossi_child=
lossi_stop=
lossi_interrupted=
# shellcheck disable=SC2329 # the traps call it
forward() {
    lossi_interrupted=1
    if [ -z "$lossi_stop" ]; then
        lossi_stop=$1
        # The runner cannot see which signal it was.
        [ "$1" != USR1 ] || [ "$lossi_rank" -gt 0 ] || [ -f "$lossi_folder/ending.json" ] ||
            printf '{"state":"timed_out","reason":"stopped shortly before its time limit"}\n' >"$lossi_folder/ending.json"
    fi
    stop_others
    [ -z "$lossi_child" ] || kill -TERM "$lossi_child" 2>/dev/null
}
stop_others() {
    exec 4>&- # srun passes on the end of its input
}
trap 'forward TERM' TERM
trap 'forward INT' INT
trap 'forward USR1' USR1
# wait_for PID: wait until the process has ended, whatever signals arrive. Its exit code is in lossi_status.
wait_for() {
    lossi_status=
    while :; do
        lossi_interrupted=
        wait "$1"
        lossi_result=$?
        # 127 after a first answer: it was already waited for, and a signal came in between.
        if [ -z "$lossi_status" ] || [ "$lossi_result" -ne 127 ]; then
            lossi_status=$lossi_result
        fi
        [ -n "$lossi_interrupted" ] || break
    done
}

lossi_others=
if [ "$lossi_nodes" -gt 1 ] && [ "$lossi_rank" -eq 0 ]; then
    # One process on each other node. This node is not part of the step, because srun can only kill, and this one writes the exit record.
    if ! mkfifo "$lossi_private/stop"; then
        write_exit_record failed 1 null "cannot make a pipe in the temporary folder; the end of the log says why"
        end 1
    fi
    (
        trap '' TERM INT USR1
        exec 4>&-
        unset LOSSI_NODE_RANK # marks the processes of this node
        LOSSI_ROLE=rank srun --relative=1 --nodes=$((lossi_nodes - 1)) --ntasks=$((lossi_nodes - 1)) --ntasks-per-node=1 \
            --kill-on-bad-exit=0 --wait=0 /bin/sh "$lossi_directory/script.sh" \
            <"$lossi_private/stop" >"$lossi_folder/ranks.jsonl" 3>&- 5>&-
        printf '{"ended":%d}\n' "$?" >>"$lossi_folder/ranks.jsonl"
    ) &
    lossi_others=$!
    exec 4>"$lossi_private/stop"
    [ -z "$lossi_stop" ] || stop_others
fi
[ "$lossi_nodes" -eq 1 ] || set -- "$@" --rank "$lossi_rank"
"$@" --task "$lossi_task" --attempt "$lossi_attempt" </dev/null 3>&- 4>&- 5>&- &
lossi_child=$!
[ -z "$lossi_stop" ] || kill -TERM "$lossi_child" 2>/dev/null
lossi_listener=
if [ "$lossi_rank" -gt 0 ]; then
    exec 6<&0 </dev/null
    (
        trap - TERM INT USR1
        read -r _
        kill -TERM "$lossi_child" 2>/dev/null
    ) <&6 6<&- 3>&- 5>&- &
    lossi_listener=$!
fi
wait_for "$lossi_child"
trap '' TERM INT USR1
lossi_code=$lossi_status
[ -z "$lossi_listener" ] || kill "$lossi_listener" 2>/dev/null
if [ -n "$lossi_others" ]; then
    stop_others
    wait "$lossi_others"
fi

if [ ! -f "$lossi_folder/$lossi_exit" ]; then
    # The runner wrote no exit record: it was killed, or never started.
    lossi_state=failed
    lossi_signal=null
    if [ "$lossi_code" -gt 128 ]; then
        lossi_signal=$((lossi_code - 128))
        lossi_reason="the runner was killed by signal $lossi_signal"
    elif [ "$lossi_code" -eq 126 ] || [ "$lossi_code" -eq 127 ]; then
        lossi_reason="the environment could not be started; the end of the log says why"
    elif [ "$lossi_code" -eq 0 ]; then
        lossi_code=1
        lossi_reason="the runner ended without an exit record; is the filesystem full?"
    else
        lossi_reason="the runner ended with exit code $lossi_code and without an exit record; the end of the log may say why"
    fi
    case $lossi_stop in
        TERM | INT) lossi_state=cancelled lossi_reason="stopped before the runner could write its progress" ;;
        USR1) lossi_state=timed_out lossi_reason="stopped shortly before its time limit" ;;
    esac
    write_exit_record "$lossi_state" "$lossi_code" "$lossi_signal" "$lossi_reason"
fi
[ -z "$lossi_others" ] || rm -f "$lossi_folder/ranks.jsonl"
end "$lossi_code"
