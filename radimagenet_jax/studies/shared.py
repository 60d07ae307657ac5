"""A group of runs that share a frozen trunk, from the weights to the scores."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util
from ml_collections import ConfigDict

from radimagenet_jax.errors import ConfigError
from radimagenet_jax.models import ops
from radimagenet_jax.studies import batches, embeddings, plan, record, tails
from radimagenet_jax.studies.course import Course
from radimagenet_jax.studies.cut import Cut, cut
from radimagenet_jax.studies.images import Images
from radimagenet_jax.studies.trunk import Activations, Trunk, make_trunk
from radimagenet_jax.training import network
from radimagenet_jax.training import state as states
from radimagenet_jax.training import step as steps
from radimagenet_jax.training.program import Program, Values
from radimagenet_jax.weights import hub

PyTree = Any
Leaves = dict[str, Any]


@dataclass(frozen=True)
class Programs:
    """What a group compiles; groups that differ in weights and figures only share it.

    Attributes:
      learning: Names of the variables that learn, 'params/...' and 'batch_stats/...'.
      train_cut: The training pass at the batch size.
      eval_cut: The evaluation pass at the batch size.
      train_chunk: The training pass in the chunks of the trunk.
      eval_chunk: The evaluation pass in the chunks of the trunk.
      train_trunk: Images to activations, augmented.
      eval_trunk: Images to activations, as they are.
      train: Of `tails.make_train`.
      evaluate: Of `tails.make_evaluate`.
      is_the_same_each_epoch: Whether nothing is augmented, so that images are computed once.
    """

    learning: frozenset[str]
    train_cut: Cut
    eval_cut: Cut
    train_chunk: Cut
    eval_chunk: Cut
    train_trunk: Trunk
    eval_trunk: Trunk
    train: Callable[..., Any]
    evaluate: Callable[..., Any]
    is_the_same_each_epoch: bool


def train(
    config: ConfigDict,
    runs: Sequence[plan.Run],
    images: Images,
    positive: int,
    after_epoch: Callable[[int], None],
) -> tuple[list[Course], dict[str, Any]]:
    """Trains the runs of a group.

    Args:
      config: The study's.
      runs: Of one group; their folds are in `images`.
      images: Of the task.
      positive: Index of the class whose AUROC is reported.
      after_epoch: Called with the number of each finished epoch.

    Returns:
      How each run went, and what the group took: 'activation_bytes', 'trunk_images', 'warnings';
      of a table of features 'features_file' and 'features_sha256' too.

    Raises:
      UserError: If the weights do not fit, or memory does not suffice.
    """
    single = plan.run_config(config, runs[0])
    if runs[0].has_table:
        program, of_seed, images, figures = _table(config, runs, images)
    else:
        program, of_seed, figures = _weights(config, runs, images.class_names)
    programs = _compiled(program, config.study.trunk_batch, config.study.side_by_side)
    frozen = jax.device_put(
        {k: v for k, v in of_seed[runs[0].seed].items() if k not in programs.learning}
    )
    own_values = [_values(config, run, images) for run in runs]
    values = jax.tree.map(lambda *each: jnp.stack(each), *own_values)
    learners = tails.start(
        program,
        values,
        _stacked([of_seed[run.seed] for run in runs], programs.learning, "params/"),
        _stacked([of_seed[run.seed] for run in runs], programs.learning, "batch_stats/"),
    )
    del of_seed
    losses = [program.loss(own.class_weights) for own in own_values]
    session = _Session(config, single, runs, images, programs, frozen)
    courses = [Course(run) for run in runs]
    best = states.copied((learners.params, learners.stats))
    for epoch in range(single.epochs):
        learners, train_losses = session.train_epoch(learners, values, epoch)
        logits = session.logits("val", learners.params, learners.stats)
        better = [
            course.after_epoch(train_loss, own, loss, images, positive)
            for course, train_loss, own, loss in zip(
                courses, train_losses, logits, losses, strict=True
            )
        ]
        best = tails.keep_better(np.array(better), (learners.params, learners.stats), best)
        after_epoch(epoch + 1)
    for split in ("val", "test"):
        for course, own in zip(courses, session.logits(split, *best), strict=True):
            course.finish(split, own, images, positive)
    return courses, session.figures() | figures


class _Session:
    """The activations of a group, and the passes over them."""

    def __init__(
        self,
        config: ConfigDict,
        single: ConfigDict,
        runs: Sequence[plan.Run],
        images: Images,
        programs: Programs,
        frozen: Leaves,
    ):
        self._single, self._runs, self._images = single, runs, images
        self._programs, self._frozen = programs, frozen
        self._views = runs[0].views
        self._key = steps.run_keys(single.augment_seed)[0]
        first = self._epoch_table(0)
        wanted = (
            len(batches.every_place(first)) * max(1, self._views),
            max(len(batches.every_place(self._split_table(name))) for name in ("val", "test")),
        )
        capacities = self._capacities(wanted, config.study.memory_gib)
        self._train = Activations(
            programs.train_trunk, programs.train_chunk, images, capacities[0], self._key
        )
        self._eval = Activations(
            programs.eval_trunk, programs.eval_chunk, images, capacities[1], self._key
        )

    def _capacities(self, wanted: tuple[int, int], memory_gib: float) -> tuple[int, int]:
        """Rows of training and evaluation activations that memory has room for."""
        of_train = self._programs.train_cut.bytes_per_image
        of_eval = self._programs.eval_cut.bytes_per_image
        budget = memory_gib * 2**30
        if wanted[0] * of_train + wanted[1] * of_eval <= budget:
            return wanted
        if self._views:
            fit = int((budget - wanted[1] * of_eval) * self._views // (wanted[0] * of_train))
            raise ConfigError(
                f"{self._views} views of all images do not fit into config.study.memory_gib="
                f"{memory_gib:g}; {max(0, fit)} do: set config.study.views to that, or 0, or raise "
                "the memory."
            )
        for_eval = int(min(wanted[1] * of_eval, budget / 4) // of_eval)
        return int((budget - for_eval * of_eval) // of_train), for_eval

    def _epoch_table(self, epoch: int) -> batches.Table:
        return batches.of_training(
            self._images,
            self._runs,
            self._single.batch_size,
            epoch,
            shuffle=self._single.shuffle,
        )

    def _split_table(self, split: str) -> batches.Table:
        return batches.of_evaluation(self._images, self._runs, split, self._single.batch_size)

    def train_epoch(
        self, learners: tails.Learner, values: Values, epoch: int
    ) -> tuple[tails.Learner, np.ndarray]:
        """Trains every run for an epoch; returns the mean losses (R,) too."""
        table = self._epoch_table(epoch)
        draws = tuple(range(self._views)) if self._views else (epoch,)
        if self._programs.is_the_same_each_epoch:
            draws = (0,)
        view: np.ndarray | int = 0
        if self._views:
            view = _drawn_views(self._key, epoch, self._images.ids, self._views)[table.places]
        sums = np.zeros(len(self._runs))
        room = self._train.capacity // max(1, self._views)
        start = 0
        for places, part in batches.stretches(table, room):
            self._train.hold(self._frozen, places, draws)
            length = part.places.shape[1]
            own_view = view if isinstance(view, int) else view[:, start : start + length]
            stretch = tails.Batches(
                rows=jnp.asarray(self._train.rows(part.places, own_view)),
                mask=jnp.asarray(part.mask),
                real=jnp.asarray(part.real),
            )
            learners, losses_of_steps = self._programs.train(
                learners, values, stretch, self._frozen, self._train.buffer, self._train.labels
            )
            sums += np.asarray(losses_of_steps, np.float64).sum(axis=1)
            start += length
        counts = (table.mask * table.real[..., None]).sum(axis=(1, 2))
        return learners, sums / counts

    def logits(self, split: str, params: Leaves, stats: Leaves) -> list[np.ndarray]:
        """Each run's logits (n, classes) of its own split, in the split's order."""
        table = self._split_table(split)
        parts = []
        for places, part in batches.stretches(table, self._eval.capacity):
            self._eval.hold(self._frozen, places)
            rows = self._eval.rows(part.places)
            computed = self._programs.evaluate(params, stats, rows, self._frozen, self._eval.buffer)
            parts.append(np.asarray(computed))
        joined = np.concatenate(parts, axis=1)
        flat = joined.reshape(len(joined), -1, joined.shape[-1])
        counts = [len(self._images.splits[run.fold][split]) for run in self._runs]
        return [own[:count] for own, count in zip(flat, counts, strict=True)]

    def figures(self) -> dict[str, Any]:
        """What the activations took."""
        held = [*self._train.buffer, *self._eval.buffer]
        return {
            "activation_bytes": sum(part.nbytes for part in held),
            "trunk_images": self._train.computed + self._eval.computed,
        }


def _drawn_views(key: jax.Array, epoch: int, ids: np.ndarray, views: int) -> np.ndarray:
    """(N,) which of its augmentations each image shows in an epoch."""
    # One fold further than any epoch's own draws go.
    epoch_key = jax.random.fold_in(jax.random.fold_in(key, 0xFFFFFFFF), epoch)
    bits = jax.vmap(lambda example: jax.random.bits(jax.random.fold_in(epoch_key, example)))(ids)
    return np.asarray(bits) % np.uint32(views)


def _weights(
    config: ConfigDict, runs: Sequence[plan.Run], class_names: tuple[str, ...]
) -> tuple[Program, dict[int, Leaves], dict[str, Any]]:
    """The runs' program, their first variables by seed, and what is to be known of them."""
    first = plan.run_config(config, runs[0])
    start = network.build(first, class_names)
    program = start.program
    of_seed = {runs[0].seed: traverse_util.flatten_dict(start.variables, sep="/")}
    for run in runs:
        if run.seed not in of_seed:
            other = network.build(plan.run_config(config, run), class_names)
            of_seed[run.seed] = traverse_util.flatten_dict(other.variables, sep="/")
    warnings = []
    if hub.is_address(first.init):
        warnings.append(f"{first.init}: {start.contract.origin}. {start.contract.licence}")
    if start.trained_with != program.input.scheme:
        warnings.append(
            f"{first.init} was trained with the input '{start.trained_with}' and is given "
            f"'{program.input.scheme}'."
        )
    return program, of_seed, {"warnings": warnings, **record.weights(first, start)}


def _table(
    config: ConfigDict, runs: Sequence[plan.Run], images: Images
) -> tuple[Program, dict[int, Leaves], Images, dict[str, Any]]:
    """As `_weights`, of heads on a table of features; the images are those of the table."""
    run = runs[0]
    path, table = str(plan.table_path(config, run.init, run.task)), embeddings.read(config, run)
    program = embeddings.program(plan.run_config(config, run), table, images.class_names)
    of_seed = {
        seed: traverse_util.flatten_dict(program.scratch(seed), sep="/")
        for seed in {run.seed for run in runs}
    }
    known = {
        "features_file": path,
        "features_sha256": table.sha256,
        "warnings": [embeddings.note(table, run.init, path)],
    }
    return program, of_seed, embeddings.tabled(images, table, run.init, path), known


def _values(config: ConfigDict, run: plan.Run, images: Images) -> Values:
    labels = images.labels[images.splits[run.fold]["train"]]
    single = plan.run_config(config, run)
    return Values.of(single, labels, len(images.class_names)).arrays()


def _stacked(each: Sequence[Leaves], names: frozenset[str], collection: str) -> Leaves:
    return {
        name: jnp.stack([leaves[name] for leaves in each])
        for name in sorted(names)
        if name.startswith(collection)
    }


@functools.lru_cache(maxsize=4)
def _compiled(program: Program, chunk: int, side_by_side: int) -> Programs:
    train_cut, eval_cut = (
        _cut(program, program.form.batch_size, training=t) for t in (True, False)
    )
    train_chunk, eval_chunk = (_cut(program, chunk, training=t) for t in (True, False))
    several = side_by_side or _side_by_side(train_cut)
    return Programs(
        learning=frozenset(_divided(program)[0]),
        train_cut=train_cut,
        eval_cut=eval_cut,
        train_chunk=train_chunk,
        eval_chunk=eval_chunk,
        train_trunk=make_trunk(train_chunk, program.prepared, program.policy),
        eval_trunk=make_trunk(eval_chunk, program.prepared, None),
        train=tails.make_train(program, train_cut, several),
        evaluate=tails.make_evaluate(eval_cut, several),
        is_the_same_each_epoch=program.policy is None,
    )


def evaluation_cut(program: Program) -> Cut:
    """Cuts the evaluation of one image."""
    return _cut(program, 1, training=False)


def _cut(program: Program, batch_size: int, *, training: bool) -> Cut:
    """Cuts the training or the evaluation pass of a batch."""
    learning, frozen = _divided(program)
    x = jax.ShapeDtypeStruct((batch_size, *program.input_shape), jnp.float32)
    if not training:
        return cut(_evaluation_pass(program.exact_model), learning, frozen, x, ())
    mask = jax.ShapeDtypeStruct((batch_size,), jnp.float32)
    key = jax.eval_shape(lambda: steps.run_keys(0)[1])
    return cut(_training_pass(program.model, learning), learning, frozen, x, (key, mask))


def _divided(program: Program) -> tuple[Leaves, Leaves]:
    """The shapes of the variables that learn, and of the others."""
    flat = traverse_util.flatten_dict(program.shapes, sep="/")
    learning = {name: leaf for name, leaf in flat.items() if program.learns(name)}
    return learning, {name: leaf for name, leaf in flat.items() if name not in learning}


def _side_by_side(train_cut: Cut) -> int:
    """All runs under one vmap (0), but where that makes grouped convolutions for a CPU."""
    has_images = any(len(part.shape) > 2 for part in train_cut.activations)
    return 1 if has_images and ops.computes_on_host() else 0


def _training_pass(model: nn.Module, learning: Leaves) -> Callable[..., tuple[jax.Array, Leaves]]:
    def run(
        learning_leaves: Leaves, frozen: Leaves, x: jax.Array, others: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, Leaves]:
        key, mask = others
        (logits, _), updates = model.apply(
            _tree(learning_leaves, frozen),
            x,
            train=True,
            mask=mask,
            rngs={"dropout": key},
            mutable=["batch_stats"],
        )
        flat = traverse_util.flatten_dict(updates, sep="/")
        return logits, {name: flat[name] for name in learning if name in flat}

    return run


def _evaluation_pass(model: nn.Module) -> Callable[..., tuple[jax.Array]]:
    def run(learning: Leaves, frozen: Leaves, x: jax.Array, others: tuple[()]) -> tuple[jax.Array]:
        return (model.apply(_tree(learning, frozen), x)[0],)

    return run


def _tree(learning: Leaves, frozen: Leaves) -> dict[str, Any]:
    return traverse_util.unflatten_dict({**learning, **frozen}, sep="/")
