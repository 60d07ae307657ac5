"""A training run, from the working directory to the report, top to bottom."""

import contextlib
import functools
import gc
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict
from scipy.special import softmax

from radimagenet_jax import outcome, own_files
from radimagenet_jax.console import console
from radimagenet_jax.data import datasets, registry
from radimagenet_jax.errors import ConfigError, UserError
from radimagenet_jax.models import ops
from radimagenet_jax.network import activation_maps
from radimagenet_jax.progress import waiting
from radimagenet_jax.reports import predictions
from radimagenet_jax.statistics import groups, metrics, operating_points
from radimagenet_jax.statistics.scores import Predictions
from radimagenet_jax.training import (
    checkpoints,
    determinism,
    distributed,
    evaluation,
    footprint,
    freezing,
    network,
    profiling,
    residence,
    schedules,
    sharding,
    stepping,
    termination,
    workdir,
    writers,
)
from radimagenet_jax.training import config as config_pages
from radimagenet_jax.training import state as states
from radimagenet_jax.training.feed import ResidentFeed, StreamedFeed, feed
from radimagenet_jax.training.order import Classes, DataOrder
from radimagenet_jax.training.program import Values
from radimagenet_jax.training.progress import TrainingProgress
from radimagenet_jax.training.tally import FORM, Tally
from radimagenet_jax.weights import hub
from radimagenet_jax.weights.contract import Contract

PyTree = Any

# What a checkpoint keeps beside the state, as `_train` gives it; `config` came later.
_KEPT: Mapping[str, own_files.Form] = {"memory": FORM, "contract": str, "data": str}

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


@dataclass(frozen=True)
class _Session:
    """What a run has open while it trains.

    Attributes:
      config: The run's.
      folder: Its working directory.
      dataset: What it learns from.
      positive: Index of the class whose AUROC is reported.
      start: Its network.
      order: In which it meets its examples.
      rate: Of the steps taken, the learning rate.
      loss: What is minimised, of single examples.
      predict: (split, {'params', 'batch_stats'}) -> logits (N, classes).
      saved: Its checkpoints.
      writer: Of its figures.
      stop: Whether it shall end.
    """

    config: ConfigDict
    folder: Path
    dataset: datasets.Dataset
    positive: int
    start: network.Start
    order: DataOrder
    rate: Any
    loss: Callable[..., jax.Array]
    predict: Callable[[str, dict[str, PyTree]], np.ndarray]
    saved: checkpoints.Checkpoints
    writer: writers.MetricWriter | writers.SilentWriter
    stop: termination.Termination

    @property
    def contract(self) -> Contract:
        """Of the network that it trains."""
        return self.start.contract.after_training(self.dataset.name, self.dataset.terms)

    @property
    def total_steps(self) -> int:
        """Steps in the run."""
        return self.config.epochs * self.order.steps_per_epoch

    def figures(self, split: str, scores: np.ndarray, *, with_interval: bool) -> dict[str, Any]:
        """Figures of a split from its scores (N, classes)."""
        chosen = getattr(self.dataset, split)
        return metrics.evaluate(
            scores,
            chosen.labels,
            chosen.patients,
            self.positive,
            with_interval=with_interval,
        )


def _run(
    config: ConfigDict, folder: Path, command: Sequence[str], stop: termination.Termination
) -> int:
    ops.keep_compiled_programs()
    # Else tracing a network spends a fifth of its time on looking through all that is imported.
    gc.freeze()

    # ---------------------------------------------------------------- Devices
    mesh = sharding.make_mesh(config.mesh.to_dict(), config.batch_size, config.accumulate)
    whole = sharding.replicated(mesh)
    footprint.check(config, mesh.size, sharding.device_memory(mesh))
    console.print(f"devices: {mesh.size} x {jax.devices()[0].device_kind}")

    # ---------------------------------------------------------------- Data
    name = registry.with_fold(config.dataset.name, config.dataset.fold)
    room = residence.room(config, mesh)
    dataset = residence.load(config, name, room.whole)
    distributed.agree({"data set": dataset.fingerprint})
    lives = residence.choose(config, dataset, room, mesh.size)
    console.print(str(lives))
    classes, labels = dataset.class_names, dataset.train.labels
    positive = datasets.positive_class(config.dataset.positive, classes, config.dataset.name)
    order = DataOrder(
        len(labels),
        config.batch_size,
        config.seed,
        config.shuffle,
        classes=Classes(labels) if config.sampling == "balanced" else None,
    )

    # ---------------------------------------------------------------- Network and what learns
    start = network.build(config, classes, mesh.size)
    program, values = start.program, Values.of(config, labels, len(classes))
    if hub.is_address(config.init):
        contract = start.contract
        console.print(f"weights: {contract.origin}. {contract.licence}")
    for finding in start.findings:
        console.print(f"weights: {finding}")
    console.print(freezing.table(program.freeze))

    # ---------------------------------------------------------------- Evaluation
    feeds = _feeds(dataset, mesh, in_parts=lives.where == "parts", workers=config.dataset.workers)
    eval_step = ops.jit(
        program.eval_step,
        in_shardings=(whole, whole, *feeds["val"].shardings[:2]),
        out_shardings=whole,
    )

    def predict(split: str, weights: dict[str, PyTree]) -> np.ndarray:
        count = len(getattr(dataset, split))
        return evaluation.predict(eval_step, weights, feeds[split], count, config.batch_size)

    # ---------------------------------------------------------------- State
    # In this order: resume this run; else the weights of config.init; else scratch (either
    # of the last two is in `start`).
    state = program.state(start.variables, values)
    layout = sharding.state_layout(state, mesh, config.shard_optimizer)
    state = jax.tree.map(sharding.place, state, layout)
    saved = checkpoints.Checkpoints(folder)
    tally = Tally()
    if saved.latest_step() is not None:
        state, meta = saved.restore(state, _KEPT)
        if meta["data"] != dataset.fingerprint:
            raise ConfigError(
                f"{dataset.name} in {config.dataset.data_dir} is not the data that {folder} was "
                f"trained on (fingerprint {dataset.fingerprint[:12]}, then {meta['data'][:12]}); "
                "restore that data, or give a new --workdir."
            )
        tally = Tally.from_json(meta["memory"])
        console.print(f"resuming at step {int(state.step)} of {values.total_steps}")
    tally.on(determinism.machine())
    step = int(state.step)

    # ---------------------------------------------------------------- Training
    stepper = stepping.stepper(
        config.scan,
        program.train_step(values),
        feeds["train"],
        order,
        layout,
        mesh,
        # A recording is of the steps that it names and no others.
        in_flight=1 if config.profile else stepping.IN_FLIGHT,
    )
    if step < values.total_steps:
        with waiting("compiling the training step"):
            stepper.compile(state, step, values.total_steps)
    if distributed.is_lead():
        determinism.keep()
    session = _Session(
        config=config,
        folder=folder,
        dataset=dataset,
        positive=positive,
        start=start,
        order=order,
        rate=program.rate(values),
        loss=jax.jit(program.loss(values.class_weights)),
        predict=predict,
        saved=saved,
        writer=writers.MetricWriter(folder, step)
        if distributed.is_lead()
        else writers.SilentWriter(),
        stop=stop,
    )
    state, is_finished = _train(session, stepper, state, tally)
    if not is_finished:
        return termination.EXIT_CODE
    return _finish(session, state, tally, command)


def _feeds(
    dataset: datasets.Dataset, mesh: Mesh, *, in_parts: bool, workers: int
) -> dict[str, ResidentFeed | StreamedFeed]:
    """The feeds of all splits; a part that cannot be read ends all processes.

    Worker processes read the training split alone: they would start anew for each evaluation.
    """
    reading = waiting("putting the images on the devices") if in_parts else contextlib.nullcontext()
    with reading:
        return distributed.all_or_none(
            lambda: {
                name: feed(
                    getattr(dataset, name),
                    mesh,
                    in_parts=in_parts,
                    workers=workers if name == "train" else 0,
                )
                for name in datasets.SPLITS
            }
        )


def _train(
    session: _Session,
    stepper: stepping.SingleSteps | stepping.ScannedSteps,
    state: states.TrainState,
    tally: Tally,
) -> tuple[states.TrainState, bool]:
    """Takes the steps that are left; tells whether all were taken, or SIGTERM came before."""
    config, order, total_steps = session.config, session.order, session.total_steps
    step = sent = int(state.step)
    profiler = profiling.Profiler(session.folder, config.profile if distributed.is_lead() else "")
    with TrainingProgress(step, total_steps, order.steps_per_epoch) as progress, profiler:
        while step < total_steps:
            tally.clock.start()
            until = order.next_boundary(sent, config.checkpoint_every)
            state, done = stepper.advance(state, sent, until)
            sent += done.sent
            stopping = session.stop.reached()
            rows = [*done.rows, *(stepper.settle() if stopping else ())]
            taken = sum(int(sums["count"]) for sums in rows)
            tally.clock.step(taken, done.waited, done.sending, done.device)
            for sums in rows:
                step += 1
                _note(session, tally, step, sums)
                loss = float(sums["loss"] / sums["count"])
                progress.step(step, loss, tally.clock.images_per_second)
            profiler.step(sent)
            if sent < until and not stopping:
                continue

            # ------------------------------------------------------------ Evaluation, saving
            # Before the next batch is drawn: whatever happens after this line, the run
            # goes on from here.
            tally.clock.stop()
            if step % order.steps_per_epoch == 0:
                with tally.clock.spending("evaluation"):
                    _validate(session, tally, step, state)
            with tally.clock.spending("saving"):
                session.saved.save(
                    state,
                    {
                        "memory": tally.to_json(),
                        "contract": session.contract.to_json(),
                        "data": session.dataset.fingerprint,
                        "config": json.loads(config_pages.to_json(config)),
                    },
                    tally.best_step,
                )
            if stopping and step < total_steps:
                session.saved.close()
                console.print(
                    f"SIGTERM: saved step {step} of {total_steps}; the same command resumes."
                )
                return state, False
    return state, True


def _note(session: _Session, tally: Tally, step: int, sums: dict[str, Any]) -> None:
    """Adds a step's sums up, and writes them down when it is time.

    Raises:
      UserError: If the loss is not finite.
    """
    order = session.order
    tally.add(sums)
    if not np.isfinite(tally.loss_sum):
        keys = [session.dataset.train.keys[i] for i in order.batch(step - 1)[0][:8]]
        session.saved.wait()
        raise UserError(_diverged(step, keys, session.saved.latest_step()))
    if step % session.config.log_every == 0 or step % order.steps_per_epoch == 0:
        session.writer.write(
            step,
            "train",
            epoch=step / order.steps_per_epoch,
            loss=tally.loss,
            accuracy=tally.accuracy,
            learning_rate=schedules.rate(session.rate, step - 1),
            images_per_second=tally.clock.images_per_second,
            input_wait=tally.clock.input_wait,
        )
        tally.reset_sums()


def _validate(session: _Session, tally: Tally, step: int, state: states.TrainState) -> None:
    """Evaluates the validation split after an epoch, and notes whether it is the best so far."""
    epoch = step // session.order.steps_per_epoch
    logits = session.predict("val", state.weights())
    val = session.figures("val", softmax(logits, axis=-1), with_interval=False)
    # What chooses the best epoch is what training minimises.
    val["loss"] = float(session.loss(logits, session.dataset.val.labels).mean())
    session.writer.write(step, "val", epoch=epoch, **{k: val[k] for k in val if k in LOGGED})
    if tally.best_loss is None or val["loss"] < tally.best_loss:
        tally.best_loss, tally.best_step = val["loss"], step
    outcome.show_epoch(epoch, session.config.epochs, val, is_best=tally.best_step == step)


def _finish(
    session: _Session, state: states.TrainState, tally: Tally, command: Sequence[str]
) -> int:
    """Tests the best epoch's network, and writes what a finished run leaves."""
    config, dataset, contract = session.config, session.dataset, session.contract
    best, _ = session.saved.restore_best(state.weights())
    scored = {}
    result: dict[str, Any] = {"positive": dataset.class_names[session.positive]}
    points: list[operating_points.OperatingPoint] = []
    for split in ("val", "test"):
        chosen = getattr(dataset, split)
        scores = softmax(session.predict(split, best), axis=-1)
        result[split] = session.figures(split, scores, with_interval=True)
        # Of many classes, one stands against the rest only where somebody asked for it.
        if len(dataset.class_names) == 2 or config.dataset.positive:
            own = scores[:, session.positive]
            # Fixed on the validation set, which comes first, and applied unchanged to the test set.
            points = points or operating_points.fix(own, chosen.labels == session.positive)
            result[split]["operating_points"] = operating_points.evaluate(
                scores,
                chosen.labels,
                chosen.patients,
                session.positive,
                points,
                config.dataset.prevalence,
            )
        result[split] |= groups.grouped(scores, chosen.labels, dataset.class_names)
        scored[split] = Predictions(
            dataset.class_names, chosen.keys, chosen.patients, chosen.labels, scores
        )
    session.saved.close()
    session.writer.close()
    result |= {
        "best_step": tally.best_step,
        "train": {
            "steps": session.total_steps,
            "epochs": config.epochs,
            "seconds": round(tally.clock.seconds, 3),
            "images_per_second": tally.clock.images_per_second,
            "input_wait": tally.clock.input_wait,
            "outside_step": tally.clock.outside_step,
            "parts": {name: round(spent, 3) for name, spent in tally.clock.parts.items()},
        },
        "model": config.model,
        "init": config.init,
        "structure": config.structure,
        "fold": config.dataset.fold,
        "seed": config.seed,
        "machines": tally.machines,
        "params_digest": states.digest(state.params, state.batch_stats),
    }
    if not distributed.is_lead():
        return 0
    determinism.keep()
    for split, values in scored.items():
        predictions.write(session.folder / f"predictions_{split}.csv", values)
    if config.export_weights:
        network.export(session.folder / "weights", best, contract)
    made_of = outcome.made_of(config, command, dataset, session.start)
    program = session.start.program
    maps = functools.partial(activation_maps, program.exact_model, contract.input, best)
    whole = outcome.write(session.folder, config, result, scored, dataset, made_of, maps)
    outcome.show(whole, session.folder)
    return 0


def _diverged(step: int, keys: Sequence[str], kept: int | None) -> str:
    last = "no checkpoint was written yet" if kept is None else f"the last good one is step {kept}"
    return (
        f"the loss is not a finite number at step {step} (images {', '.join(keys)}, ...); {last}: "
        "lower config.optimizer.learning_rate, or look at these images."
    )
