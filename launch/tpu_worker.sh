#!/usr/bin/env bash
# What tpu_vm.sh does on each worker of a TPU VM; it is copied there with the project.
#
#   launch/tpu_worker.sh install SERVER:/SHARE   mount the shared disk, install the project
#   launch/tpu_worker.sh run FLAGS...            train, or follow the training that runs; its code
#   launch/tpu_worker.sh stop                    SIGTERM, and wait until the training has saved
#
# The training outlives the connection that started it. PYTHON names the interpreter.
# Put --dry_run first to print what `install` would run.
set -euo pipefail
# shellcheck source=launch/dry_run.sh
source "$(dirname "${BASH_SOURCE[0]}")/dry_run.sh"

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
shared=/mnt/radimagenet
state=$HOME/.radimagenet_training
save_seconds=300

install_project() {
  local folder
  [[ "${1:-}" =~ ^[A-Za-z0-9.-]+:/.+ ]] || die "give the shared disk as SERVER:/SHARE."
  if ! command -v mount.nfs >/dev/null; then
    # A VM that has just started is still busy with its own updates.
    run sudo apt-get -qq -o DPkg::Lock::Timeout=300 install -y nfs-common
  fi
  run sudo mkdir -p "$shared"
  mountpoint -q "$shared" || run sudo mount -t nfs -o hard "$1" "$shared"
  for folder in runs xla tensorflow_datasets; do
    [ -d "$shared/$folder" ] ||
      run sudo install -d -o "$(id -u)" -g "$(id -g)" "$shared/$folder"
  done
  # Where the configs look for data: prepared once for all workers and for the next VM.
  [ -e "$HOME/tensorflow_datasets" ] ||
    run ln -s "$shared/tensorflow_datasets" "$HOME/tensorflow_datasets"
  # The system's Python may be older than 3.11; uv brings its own.
  run env PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --quiet --user uv
  [ -d "$HOME/venv" ] || run "$HOME/.local/bin/uv" venv --quiet --python 3.12 "$HOME/venv"
  run "$HOME/.local/bin/uv" pip install --quiet --python "$HOME/venv" -e "${project}[tpu]"
}

# The lock is held by the training and its supervisor, and let go however they end.
running() { ! flock --nonblock "$state/lock" true; }

# Runs a command in the background, apart from this connection, and keeps its exit code.
start() {
  rm -f "$state/supervisor" "$state/training" "$state/code"
  # shellcheck disable=SC2016 # the inner shell expands it
  nohup setsid flock --nonblock "$state/lock" bash -c '
    state=$1; shift
    "$@" &
    echo $! >"$state/training"
    echo $$ >"$state/supervisor"
    code=0; wait $! || code=$?
    echo "$code" >"$state/code"' - "$state" "$@" >"$state/log" 2>&1 </dev/null &
  local tries=0
  until [ -s "$state/supervisor" ]; do
    [ $((tries += 1)) -le 100 ] || { echo "the training does not start" >&2; exit 1; }
    sleep 0.1
  done
}

follow() {
  tail -n +1 -F --pid="$(cat "$state/supervisor")" "$state/log" 2>/dev/null || true
  [ -s "$state/code" ] || { echo "the training was killed" >&2; exit 137; }
  exit "$(cat "$state/code")"
}

stop() {
  running || { echo "no training runs here" >&2; return 0; }
  kill -TERM "$(cat "$state/training")"
  flock --wait "$save_seconds" "$state/lock" true ||
    { echo "the training has not ended after $save_seconds s" >&2; exit 1; }
}

[ "${1:-}" = --dry_run ] && { dry_run=yes; shift; }
verb=${1:---help}
[ $# -eq 0 ] || shift
[ "$verb" = --help ] || mkdir -p "$state"
case $verb in
  --help) help_of "$0" ;;
  install) install_project "$@" ;;
  run)
    training_flags "$@"
    cd "$project"
    if ! running; then
      start env "JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$shared/xla}" \
        "${PYTHON:-$HOME/venv/bin/python}" -m radimagenet_jax.main "$@"
    fi
    follow
    ;;
  stop) stop ;;
  *) die "unknown command '$verb'; it is install, run or stop." ;;
esac
