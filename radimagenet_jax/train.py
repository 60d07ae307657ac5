"""A training run, from the working directory to the report, top to bottom."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from scipy.special import softmax

from radimagenet_jax import config as config_pages
from radimagenet_jax import models, outcome
from radimagenet_jax.console import console
from radimagenet_jax.data import datasets
from radimagenet_jax.errors import ConfigError, UserError
from radimagenet_jax.models import platform
from radimagenet_jax.reports import predictions
from radimagenet_jax.statistics import groups, intervals, metrics
from radimagenet_jax.statistics.scores import Predictions
from radimagenet_jax.training import (
    checkpoints,
    distributed,
    evaluation,
    freezing,
    losses,
    network,
    profiling,
    program,
    schedules,
    sharding,
    stepping,
    termination,
    workdir,
    writers,
)
from radimagenet_jax.training import state as states
from radimagenet_jax.training import step as steps
from radimagenet_jax.training.feed import feed
from radimagenet_jax.training.memory import Memory
from radimagenet_jax.training.order import Classes, DataOrder
from radimagenet_jax.training.progress import TrainingProgress, waiting

PyTree = Any

# Figures of the validation split that the log shows, those that the number of classes allows.
LOGGED = ("loss", "accuracy", "auroc", "top5_accuracy", "balanced_accuracy", "macro_f1")


def train(config: ConfigDict, directory: str, command: Sequence[str]) -> int:
    """Runs, or resumes, a training run.

    Args:
      config: Of `configs/base.py`, checked by `config.validate`.
      directory: The run's working directory.
      command: The command line, for the report.

    Returns:
      The exit code: 0 when the run is finished, 143 when SIGTERM stopped it after a save.

    Raises:
      UserError: For everything that the user can mend.
    """
    distributed.agree({"config": config_pages.to_json(config), "code": distributed.code_digest()})
    run = distributed.lead_first(
        lambda: workdir.Workdir(directory, config),
        lambda: workdir.Workdir(directory, config, follows=True),
    )
    with contextlib.closing(run), distributed.telling_of_lost_processes(run.path):
        if run.result is not None:
            console.print(f"{run.path} is finished; nothing is left to do.")
            outcome.show(run.result, run.path)
            return 0
        with termination.Termination() as stop:
            return _run(config, run.path, command, stop)


def _run(
    config: ConfigDict, folder: Path, command: Sequence[str], stop: termination.Termination
) -> int:
    enable_compilation_cache()
    is_lead = distributed.is_lead()

    # ---------------------------------------------------------------- Devices
    mesh = sharding.make_mesh(config.mesh.to_dict(), config.batch_size, config.accumulate)
    whole = sharding.replicated(mesh)
    console.print(f"devices: {mesh.size} x {jax.devices()[0].device_kind}")

    # ---------------------------------------------------------------- Data
    name = datasets.with_fold(config.dataset.name, config.dataset.fold)
    dataset = datasets.load(
        name,
        config.dataset.data_dir,
        config.image_size,
        streaming=config.dataset.streaming,
        memory=int(config.dataset.memory_gib * 2**30),
    )
    distributed.agree({"data set": dataset.fingerprint})
    positive = positive_class(config, dataset.class_names)
    train_feed = feed(dataset.train, mesh)
    held_out = {"val": dataset.val, "test": dataset.test}
    held_out_feeds = {name: feed(split, mesh) for name, split in held_out.items()}
    order = DataOrder(
        len(dataset.train.labels),
        config.batch_size,
        config.seed,
        config.shuffle,
        classes=Classes(dataset.train.labels) if config.sampling == "balanced" else None,
    )
    total_steps = config.epochs * order.steps_per_epoch

    # ---------------------------------------------------------------- Network and what learns
    model, variables, contract = network.build(config, dataset.class_names)
    keras_layers = models.architecture(config.model).keras_layers()
    freeze = freezing.specify(config.structure, variables, keras_layers)
    console.print(freezing.table(freeze))

    # ---------------------------------------------------------------- Step
    weights = None
    if config.class_weights == "balanced":
        weights = losses.class_weights(dataset.train.labels, len(dataset.class_names))
    made = program.make(
        config,
        model,
        freeze,
        scheme=contract.preprocessing,
        channel_order=contract.channel_order,
        steps_per_epoch=order.steps_per_epoch,
        devices=mesh.size,
        class_weights=weights,
    )
    eval_step = platform.jit(
        steps.make_eval_step(
            model, scheme=contract.preprocessing, channel_order=contract.channel_order
        ),
        in_shardings=(whole, whole, *held_out_feeds["val"].shardings[:2]),
        out_shardings=whole,
    )
    loss = jax.jit(made.loss)

    # ---------------------------------------------------------------- State
    # In this order: resume this run; else the weights of config.init; else scratch (either
    # of the last two is in `variables`).
    state = made.create(variables)
    layout = sharding.state_layout(state, mesh, config.shard_optimizer)
    state = jax.tree.map(sharding.place, state, layout)
    saved = checkpoints.Checkpoints(folder)
    memory = Memory()
    if saved.latest_step() is not None:
        state, meta = saved.restore(state)
        if meta["data"] != dataset.fingerprint:
            raise ConfigError(
                f"{dataset.name} in {config.dataset.data_dir} is not the data that {folder} was "
                f"trained on (fingerprint {dataset.fingerprint[:12]}, then {meta['data'][:12]}); "
                "restore that data, or give a new --workdir."
            )
        memory = Memory.from_json(meta["memory"])
        console.print(f"resuming at step {int(state.step)} of {total_steps}")
    step = int(state.step)
    stepper = stepping.stepper(config.scan, made.step, train_feed, order, layout, mesh)
    if step < total_steps:
        with waiting("compiling the training step"):
            stepper.compile(state, step, total_steps)
    writer = writers.MetricWriter(folder, step) if is_lead else writers.SilentWriter()

    def logits_of(split: str, weights: dict[str, PyTree]) -> np.ndarray:
        examples, count = held_out_feeds[split], len(held_out[split])
        return evaluation.predict(eval_step, weights, examples, count, config.batch_size)

    def figures(split: str, values: np.ndarray, resamples: int) -> dict[str, Any]:
        chosen = held_out[split]
        return metrics.evaluate(
            values, chosen.labels, chosen.patients, positive, config.seed, resamples=resamples
        )

    # ---------------------------------------------------------------- Training
    profiler = profiling.Profiler(folder, config.profile if is_lead else "")
    with TrainingProgress(step, total_steps, order.steps_per_epoch) as progress, profiler:
        while step < total_steps:
            memory.clock.start()
            until = order.next_boundary(step, config.checkpoint_every)
            state, rows = stepper.advance(state, step, until)
            taken = sum(int(sums["count"]) for sums in rows)
            memory.clock.step(taken, stepper.waited, stepper.computed)
            for sums in rows:
                step += 1
                memory.add(sums)
                if not np.isfinite(memory.loss_sum):
                    keys = [dataset.train.keys[i] for i in order.batch(step - 1)[0][:8]]
                    saved.wait()
                    raise UserError(_diverged(step, keys, saved.latest_step()))
                if step % config.log_every == 0 or step % order.steps_per_epoch == 0:
                    writer.write(
                        step,
                        "train",
                        epoch=step / order.steps_per_epoch,
                        loss=memory.loss,
                        accuracy=memory.accuracy,
                        learning_rate=schedules.rate(made.rate, step - 1),
                        images_per_second=memory.clock.images_per_second,
                        input_wait=memory.clock.input_wait,
                    )
                    memory.reset_sums()
            profiler.step(step)
            progress.step(step, float(sums["loss"] / sums["count"]), memory.clock.images_per_second)
            stopping = stop.reached()
            if step < until and not stopping:
                continue

            # ------------------------------------------------------------ Evaluation, saving
            # Before the next batch is drawn: whatever happens after this line, the run
            # goes on from here.
            memory.clock.stop()
            if step % order.steps_per_epoch == 0:
                epoch = step // order.steps_per_epoch
                logits = logits_of("val", state.weights())
                val = figures("val", softmax(logits, axis=-1), 0)
                # What chooses the best epoch is what training minimises.
                val["loss"] = float(loss(logits, dataset.val.labels).mean())
                writer.write(step, "val", epoch=epoch, **{k: val[k] for k in val if k in LOGGED})
                if memory.best_loss is None or val["loss"] < memory.best_loss:
                    memory.best_loss, memory.best_step = val["loss"], step
                outcome.show_epoch(epoch, config.epochs, val, is_best=memory.best_step == step)
            saved.save(
                state,
                {
                    "memory": memory.to_json(),
                    "contract": contract.to_json(),
                    "data": dataset.fingerprint,
                },
                memory.best_step,
            )
            if stopping and step < total_steps:
                saved.close()
                console.print(
                    f"SIGTERM: saved step {step} of {total_steps}; the same command resumes."
                )
                return termination.EXIT_CODE

    # ---------------------------------------------------------------- Test, with the best epoch
    best, _ = saved.restore_best(state.weights())
    scored = {}
    result: dict[str, Any] = {}
    for split, chosen in reversed(held_out.items()):
        values = softmax(logits_of(split, best), axis=-1)
        result[split] = figures(split, values, intervals.RESAMPLES)
        result[split] |= groups.grouped(values, chosen.labels, dataset.class_names)
        scored[split] = Predictions(
            dataset.class_names, chosen.keys, chosen.patients, chosen.labels, values
        )
    saved.close()
    writer.close()
    result |= {
        "best_step": memory.best_step,
        "train": {
            "steps": step,
            "epochs": config.epochs,
            "seconds": round(memory.clock.seconds, 3),
            "images_per_second": memory.clock.images_per_second,
            "input_wait": memory.clock.input_wait,
            "outside_step": memory.clock.outside_step,
        },
        "model": config.model,
        "init": config.init,
        "structure": config.structure,
        "fold": config.dataset.fold,
        "seed": config.seed,
        "params_digest": states.digest(state.params, state.batch_stats),
    }
    if not is_lead:
        return 0

    # ---------------------------------------------------------------- Files, report
    for split, values in scored.items():
        predictions.write(folder / f"predictions_{split}.csv", values)
    if config.export_weights:
        network.export(folder / "weights", best, contract)
    outcome.write(folder, config, result, scored, dataset, contract, freeze, positive, command)
    outcome.show(result, folder)
    return 0


def enable_compilation_cache() -> None:
    """Keeps compiled programs between processes; `JAX_COMPILATION_CACHE_DIR` moves the folder."""
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        folder = os.path.join(os.path.expanduser(cache), "radimagenet_jax", "xla")
        jax.config.update("jax_compilation_cache_dir", folder)
    # The small ones too: a run has some fifty, which together take longer than they take to read.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def positive_class(config: ConfigDict, class_names: tuple[str, ...]) -> int:
    """Index of the class whose AUROC is reported.

    Raises:
      ConfigError: If the data set has no such class.
    """
    name = config.dataset.positive or class_names[-1]
    if name not in class_names:
        raise ConfigError(
            f"config.dataset.positive is {name!r}, but {config.dataset.name} has the classes "
            f"{', '.join(class_names)}."
        )
    return class_names.index(name)


def _diverged(step: int, keys: Sequence[str], kept: int | None) -> str:
    last = "no checkpoint was written yet" if kept is None else f"the last good one is step {kept}"
    return (
        f"the loss is not a finite number at step {step} (images {', '.join(keys)}, ...); {last}: "
        "lower config.optimizer.learning_rate, or look at these images."
    )
