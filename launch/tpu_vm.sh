#!/usr/bin/env bash
# Trains on a Cloud TPU VM, one host or a pod, by gcloud's queued resources.
#
#   launch/tpu_vm.sh train --name=rin --zone=us-west4-a --type=v5litepod-8 \
#       --shared=10.0.0.2:/share -- \
#       --config=configs/radimagenet.py --workdir=/mnt/radimagenet/runs/rin
#
#   train    all of the below until the training is finished: creates the TPU, copies, runs,
#            begins again after every preemption, and deletes the TPU at the end
#   create   ask for the TPU and wait until it is there
#   copy     copy the project to all workers and install it, mount the shared disk
#   run      train on all workers, or follow the training that runs there
#   stop     let the training save and end
#   status   the state of the request and of the TPU
#   delete   delete the TPU and the request
#
#   --name       of the TPU and of its request
#   --zone       such as us-west4-a
#   --type       accelerator type, such as v5litepod-8, v6e-16, v5p-8, v4-8 (create, train)
#   --shared     SERVER:/SHARE, an NFS export that the TPU reaches, such as a Filestore instance;
#                it becomes /mnt/radimagenet (copy, train)
#   --project    otherwise gcloud's own
#   --version    runtime version; otherwise the plain one of the type
#   --on_demand  not a spot TPU: several times the price, never preempted
#   --keep       train leaves the TPU in place when it ends
#   --restarts   how often train may begin again (100)
#   --poll       seconds between two looks at the state (60)
#   --internal_ip  no external addresses: reach the workers from inside the network
#   --dry_run    print the commands, start nothing
#
# A preempted TPU loses its disks, so the working directory must be in /mnt/radimagenet; data and
# compiled programs are there as well. The exit code is the training's. Ctrl-C of `train` stops
# the training after a save; the connection may break without harm: the same command goes on.
set -euo pipefail
# shellcheck source=launch/dry_run.sh
source "$(dirname "${BASH_SOURCE[0]}")/dry_run.sh"

project_folder=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
shared_folder=/mnt/radimagenet
remote=radimagenet_jax

case ${1:---help} in
  --help) help_of "$0"; exit 0 ;;
  train | create | copy | run | stop | status | delete) verb=$1; shift ;;
  *) die "unknown command '$1'; it is train, create, copy, run, stop, status or delete." ;;
esac
name='' zone='' type='' shared='' version='' restarts=100 poll=60 keep=no spot=(--spot)
place=() addresses=() within=()
while [ $# -gt 0 ]; do
  case $1 in
    --help) help_of "$0"; exit 0 ;;
    --name=*) name=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --type=*) type=${1#*=} ;;
    --shared=*) shared=${1#*=} ;;
    --project=?*) place+=("$1") ;;
    --version=*) version=${1#*=} ;;
    --on_demand) spot=() ;;
    --keep) keep=yes ;;
    --restarts=*) restarts=${1#*=} ;;
    --poll=*) poll=${1#*=} ;;
    --internal_ip) addresses=(--internal-ips) within=(--internal-ip) ;;
    --dry_run) dry_run=yes ;;
    --) shift; break ;;
    *) die "unknown argument '$1'; --help lists them, and the training's own flags come after --." ;;
  esac
  shift
done

[[ "$name" =~ ^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$ ]] ||
  die "--name must be lower-case letters, digits and '-', beginning with a letter, not '$name'."
[[ "$zone" =~ ^[a-z]+-[a-z]+[0-9]+-[a-z]$ ]] || die "--zone must be like us-west4-a, not '$zone'."
place+=("--zone=$zone")
if [[ $verb =~ ^(train|create)$ ]]; then
  [[ "$type" =~ ^(v4|v5p|v5litepod|v6e)-[1-9][0-9]*$ ]] ||
    die "--type must be like v5litepod-8, v6e-16, v5p-8 or v4-8, not '$type'."
  case ${type%-*} in
    v5litepod) version=${version:-v2-alpha-tpuv5-lite} ;;
    v5p) version=${version:-v2-alpha-tpuv5} ;;
    v6e) version=${version:-v2-alpha-tpuv6e} ;;
    v4) version=${version:-tpu-ubuntu2204-base} ;;
  esac
fi
if [[ $verb =~ ^(train|copy)$ ]]; then
  [[ "$shared" =~ ^[A-Za-z0-9.-]+:/[A-Za-z0-9._/-]+$ ]] ||
    die "--shared must be SERVER:/SHARE, such as 10.0.0.2:/share, not '$shared'."
fi
[[ "$restarts" =~ ^[0-9]+$ ]] || die "--restarts must be a whole number, not '$restarts'."
positive --poll "$poll"
if [[ $verb =~ ^(train|run)$ ]]; then
  training_flags "$@"
  [[ " $* " =~ \ --workdir[=\ ]$shared_folder/ ]] ||
    die "--workdir must be in $shared_folder: all workers write there, and a TPU loses its disks."
else
  [ $# -eq 0 ] || die "$verb takes no flags of the training, but there is '$1'."
fi
[ "$dry_run" = yes ] || command -v gcloud >/dev/null ||
  die "gcloud is not found; install the Google Cloud SDK, or add --dry_run."

queued=(gcloud compute tpus queued-resources)
vm=(gcloud compute tpus tpu-vm)

# ACTIVE, SUSPENDED, ...; NONE if there is no such request, UNKNOWN if it cannot be asked for.
request_state() {
  local answer
  if answer=$("${queued[@]}" describe "$name" "${place[@]}" '--format=value(state.state)' 2>&1); then
    echo "${answer##*$'\n'}"
  elif [[ $answer =~ NOT_FOUND|"not found" ]]; then
    echo NONE
  else
    printf '%s\n' "$answer" >&2
    echo UNKNOWN
  fi
}

# A TPU that is being taken away is no longer READY, while its request may still be ACTIVE.
usable() {
  [ "$(request_state)" = ACTIVE ] && [ READY = "$("${vm[@]}" describe "$name" "${place[@]}" \
    '--format=value(state)' 2>/dev/null)" ]
}

# A signal ends the sleep, not the script.
pause() { sleep "$poll" || true; }

delete() { run "${queued[@]}" delete "$name" "${place[@]}" --force --quiet; }

request() {
  run "${queued[@]}" create "$name" "--node-id=$name" "${place[@]}" "--accelerator-type=$type" \
    "--runtime-version=$version" "${spot[@]}" "${addresses[@]}"
}

# Returns 0 when the TPU can be used, 2 when gcloud refuses the request, 1 if it is not served.
create() {
  local state=NONE
  [ "$dry_run" = yes ] || state=$(request_state)
  if [[ $state =~ ^(ACTIVE|FAILED|SUSPENDING|SUSPENDED)$ ]] && ! usable; then
    # What was preempted or has failed is never served again.
    delete || return 2
    state=NONE
  fi
  if [ "$state" = NONE ]; then
    request || return 2
  fi
  if [ "$dry_run" = yes ]; then
    run "${queued[@]}" describe "$name" "${place[@]}" '--format=value(state.state)'
    return
  fi
  until usable; do
    [ "$asked" = no ] || return 143
    state=$(request_state)
    [[ ! $state =~ ^(NONE|FAILED|SUSPENDING|SUSPENDED)$ ]] ||
      { echo "the request for $name is $state" >&2; return 1; }
    echo "waiting for $name: $state" >&2
    pause
  done
}

on_workers() { run "${vm[@]}" ssh "$name" "${place[@]}" "${within[@]}" --worker=all "--command=$1"; }

copy() {
  local archive
  archive=PROJECT.tar.gz
  [ "$dry_run" = yes ] || archive=$(mktemp --suffix=.tar.gz)
  run tar -C "$project_folder" --exclude=__pycache__ -czf "$archive" pyproject.toml setup.py \
    README.md LICENSE configs launch radimagenet_jax tfds_builders || { rm -f "$archive"; return 1; }
  run "${vm[@]}" scp "$archive" "$name:$remote.tar.gz" "${place[@]}" "${within[@]}" \
    --worker=all || { rm -f "$archive"; return 1; }
  rm -f "$archive"
  on_workers "rm -rf $remote && mkdir $remote && tar -C $remote -xzf $remote.tar.gz && bash $remote/launch/tpu_worker.sh install $shared"
}

train_on_workers() { on_workers "bash $remote/launch/tpu_worker.sh run $(show "$@")"; }

stop() { on_workers "bash $remote/launch/tpu_worker.sh stop"; }

# One TPU from its creation to its end; returns the training's code, or why it did not come to it.
attempt() {
  local tries
  create || return
  for ((tries = 1; ; tries++)); do
    copy && break
    # A TPU that has just started may not answer yet.
    if [ "$asked" = yes ] || ! usable; then return 255; fi
    [ "$tries" -lt 3 ] || return 2
    pause
  done
  train_on_workers "$@"
}

asked=no
train() {
  local round code
  trap 'asked=yes' INT TERM
  for ((round = 0; ; round++)); do
    code=0
    attempt "$@" || code=$?
    [ "$dry_run" = no ] || break
    # 2: what was asked for is wrong, here or in the training's flags.
    if [ "$code" -eq 0 ] || [ "$code" -eq 2 ]; then break; fi
    # It takes the state a while to tell of a preemption.
    [ "$asked" = yes ] || pause
    if [ "$asked" = yes ]; then
      echo "asked to end: the training saves" >&2
      stop || echo "the workers cannot be reached; the last checkpoint counts" >&2
      code=143
      break
    fi
    # 255 is ssh's: the connection broke, not the training.
    if [ "$code" -ne 143 ] && [ "$code" -ne 255 ] && usable; then break; fi
    [ "$round" -lt "$restarts" ] || break
    echo "ended with $code; beginning again ($((round + 1)) of $restarts)" >&2
  done
  if [ "$keep" = yes ]; then
    echo "$name is kept and costs; delete it with: launch/tpu_vm.sh delete --name=$name --zone=$zone" >&2
  else
    delete || echo "$name is NOT deleted and costs; delete it by hand" >&2
  fi
  return "$code"
}

case $verb in
  train) train "$@" ;;
  create) create ;;
  copy) copy ;;
  run) train_on_workers "$@" ;;
  stop) stop ;;
  status)
    run "${queued[@]}" describe "$name" "${place[@]}" '--format=value(state.state)'
    run "${vm[@]}" describe "$name" "${place[@]}" '--format=value(state)'
    ;;
  delete) delete ;;
esac
