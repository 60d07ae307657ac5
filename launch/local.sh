#!/usr/bin/env bash
# Trains with several processes on this machine's CPU, as several hosts would.
#
#   launch/local.sh [--processes=2] [--devices=1] [--port=PORT] [--restarts=0] [--dry_run] -- \
#       --config=configs/quickstart.py --workdir=runs/two
#
#   --processes  how many processes
#   --devices    CPU devices of each
#   --port       of the coordinator on 127.0.0.1; otherwise a free one is found
#   --restarts   how often to start again when the run was terminated (143)
#   --dry_run    print the commands, start nothing
#
# PYTHON names the interpreter (python). SIGTERM and Ctrl-C are passed on: every process saves
# and ends. When one fails the others are terminated. The exit code is 0, 143 after a
# termination (the same command resumes), or that of the process that failed first.
set -euo pipefail
# shellcheck source=launch/dry_run.sh
source "$(dirname "${BASH_SOURCE[0]}")/dry_run.sh"

processes=2 devices=1 port='' restarts=0
while [ $# -gt 0 ]; do
  case $1 in
    --help) help_of "$0"; exit 0 ;;
    --processes=*) processes=${1#*=} ;;
    --devices=*) devices=${1#*=} ;;
    --port=*) port=${1#*=} ;;
    --restarts=*) restarts=${1#*=} ;;
    --dry_run) dry_run=yes ;;
    --) shift; break ;;
    *) die "unknown argument '$1'; the training's own flags come after --" ;;
  esac
  shift
done
[ $# -gt 0 ] || die "give the training's flags after --, such as -- --config=... --workdir=..."
positive --processes "$processes"
positive --devices "$devices"
[[ "$restarts" =~ ^[0-9]+$ ]] || die "--restarts must be a whole number, not '$restarts'."
[ -z "$port" ] || positive --port "$port"
python=${PYTHON:-python}

free_port() {
  "$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

pids=() asked=no
pass_on() { asked=yes; [ ${#pids[@]} -eq 0 ] || kill -TERM "${pids[@]}" 2>/dev/null || true; }

# Starts all processes and waits for them; the outcome is in $code.
attempt() {
  local at=$port id status done_pid
  if [ -z "$at" ]; then
    if [ "$dry_run" = yes ]; then at=FREE_PORT; else at=$(free_port); fi
  fi
  pids=()
  for ((id = 0; id < processes; id++)); do
    local command=(env JAX_PLATFORMS=cpu "JAX_NUM_CPU_DEVICES=$devices"
      "$python" -m radimagenet_jax.main "${arguments[@]}"
      "--coordinator=127.0.0.1:$at" "--processes=$processes" "--process_id=$id")
    if [ "$dry_run" = yes ]; then run "${command[@]}"; continue; fi
    show "${command[@]}" >&2
    "${command[@]}" &
    pids+=("$!")
  done
  code=0
  while [ ${#pids[@]} -gt 0 ]; do
    status=0 done_pid=''
    wait -n -p done_pid "${pids[@]}" || status=$?
    [ -n "$done_pid" ] || continue # a signal interrupted the wait
    local left=() pid
    for pid in "${pids[@]}"; do [ "$pid" = "$done_pid" ] || left+=("$pid"); done
    pids=("${left[@]}")
    if [ "$status" -ne 0 ] && { [ "$code" -eq 0 ]; }; then
      code=$status
      # The others would wait for it in their next collective operation.
      if [ "$status" -ne 143 ] && [ ${#pids[@]} -gt 0 ]; then
        echo "a process ended with $status; terminating the others" >&2
        kill -TERM "${pids[@]}" 2>/dev/null || true
      fi
    elif [ "$status" -ne 0 ] && [ "$status" -ne 143 ] && [ "$code" -eq 143 ]; then
      code=$status
    fi
  done
}

arguments=("$@")
trap pass_on TERM INT
for ((round = 0; ; round++)); do
  attempt
  if [ "$code" -ne 143 ] || [ "$asked" = yes ] || [ "$round" -ge "$restarts" ]; then exit "$code"; fi
  echo "terminated; starting again ($((round + 1)) of $restarts)" >&2
done
