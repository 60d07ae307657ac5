#!/usr/bin/env bash
# The batch script that slurm.sh submits: trains, and comes back when it was terminated.
#
# It gets the training's flags, and from the environment PYTHON and RESTARTS. Slurm runs a copy
# of it from another folder, so it takes nothing from the files beside it.
set -uo pipefail

# Slurm signals this shell alone (B:TERM). srun would answer SIGTERM by killing its processes, so
# the step itself is told; without --full that leaves this shell out.
trap 'scancel --signal=TERM "$SLURM_JOB_ID"' TERM

# Since Slurm 22.05 srun no longer takes it from the job.
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}

# Every process sees all GPUs of its node and takes the one of its local number: JAX counts so.
# The first process to end must not take the others with it while they save.
srun --gpu-bind=none --kill-on-bad-exit=0 --wait=120 \
  "${PYTHON:-python}" -m radimagenet_jax.main "$@" &
step=$!
while :; do
  wait "$step"
  code=$?
  # A signal ends the wait, not the step.
  kill -0 "$step" 2>/dev/null || break
done

if [ "$code" -eq 143 ]; then
  # Not if somebody cancelled the job, nor if Slurm has put it back into the queue by itself.
  state=$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T) || state=unknown
  turns=${SLURM_RESTART_COUNT:-0}
  if [ "$state" = RUNNING ] && [ "$turns" -lt "${RESTARTS:-100}" ]; then
    echo "terminated and saved; back into the queue ($((turns + 1)) of ${RESTARTS:-100})" >&2
    scontrol requeue "$SLURM_JOB_ID" || echo "the job cannot be requeued; submit it again" >&2
  else
    echo "terminated and saved; the same command resumes (state $state, turn $turns)" >&2
  fi
fi
exit "$code"
