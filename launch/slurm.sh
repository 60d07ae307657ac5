#!/usr/bin/env bash
# Submits a training to Slurm: several nodes, one process for each GPU.
#
#   launch/slurm.sh [--nodes=1] [--gpus=4] [--time=04:00:00] [...] [--dry_run] -- \
#       --config=configs/radimagenet.py --workdir=/shared/runs/rin
#
#   --nodes         how many nodes
#   --gpus          GPUs of each node
#   --cpus_per_gpu  cores for each process, which decode its images (8)
#   --time          limit of one turn; the job comes back until the training is finished
#   --grace         seconds before the limit at which the training is told to save (120)
#   --restarts      how often the job may come back (100)
#   --partition, --account, --qos, --job_name   as sbatch takes them
#   --sbatch=FLAG   a further flag of sbatch, any number of times: --sbatch=--mem=0
#   --dry_run       print the command, submit nothing
#
# The nodes must share the project's folder, the interpreter, the data and the working directory.
# PYTHON names the interpreter (python). SIGTERM, at the time limit or from the scheduler, saves;
# the job then puts itself back into the queue under the same number and resumes (slurm_job.sh).
# `scancel JOB` ends it for good, after a save; the same command resumes it.
#
# Costs: a preemptible partition or qos, since nothing is lost by a preemption; a short --time,
# which fits into gaps of the schedule. JAX_COMPILATION_CACHE_DIR on a shared disk (the home is one
# on most clusters, and the default is in it) spares every turn after the first the compilation.
set -euo pipefail
# shellcheck source=launch/dry_run.sh
source "$(dirname "${BASH_SOURCE[0]}")/dry_run.sh"

nodes=1 gpus=4 cpus_per_gpu=8 time=04:00:00 grace=120 restarts=100 job_name=radimagenet
places=() further=()
while [ $# -gt 0 ]; do
  case $1 in
    --help) help_of "$0"; exit 0 ;;
    --nodes=*) nodes=${1#*=} ;;
    --gpus=*) gpus=${1#*=} ;;
    --cpus_per_gpu=*) cpus_per_gpu=${1#*=} ;;
    --time=*) time=${1#*=} ;;
    --grace=*) grace=${1#*=} ;;
    --restarts=*) restarts=${1#*=} ;;
    --job_name=*) job_name=${1#*=} ;;
    --partition=?* | --account=?* | --qos=?*) places+=("$1") ;;
    --sbatch=-?*) further+=("${1#*=}") ;;
    --dry_run) dry_run=yes ;;
    --) shift; break ;;
    *) die "unknown argument '$1'; --help lists them, and the training's own flags come after --." ;;
  esac
  shift
done
training_flags "$@"
positive --nodes "$nodes"
positive --gpus "$gpus"
positive --cpus_per_gpu "$cpus_per_gpu"
positive --grace "$grace"
[[ "$restarts" =~ ^[0-9]+$ ]] || die "--restarts must be a whole number, not '$restarts'."
[[ "$time" =~ ^([0-9]+-)?[0-9]+(:[0-9]+){0,2}$ ]] ||
  die "--time must be MINUTES, HH:MM:SS or DAYS-HH:MM:SS, not '$time'."
[[ "$job_name" =~ ^[A-Za-z0-9._-]+$ ]] ||
  die "--job_name may have letters, digits, '.', '_' and '-', not '$job_name'."
[ "$dry_run" = yes ] || command -v sbatch >/dev/null ||
  die "sbatch is not found; run this on a login node of a Slurm cluster, or add --dry_run."

run env "PYTHON=${PYTHON:-python}" "RESTARTS=$restarts" sbatch "--job-name=$job_name" \
  "--nodes=$nodes" "--ntasks-per-node=$gpus" "--gpus-per-node=$gpus" \
  "--cpus-per-task=$cpus_per_gpu" "--time=$time" \
  "--signal=B:TERM@$grace" --requeue --open-mode=append "--output=$job_name-%j.log" \
  --export=ALL "${places[@]}" "${further[@]}" \
  "$(dirname "${BASH_SOURCE[0]}")/slurm_job.sh" "$@"
