"""Heads on a table of features, in the place of a network whose trunk is frozen.

The table is the trunk that somebody else has computed: the heads have the first values, batches,
dropout, optimiser and choice of the epoch that heads on a network's pooled features have.
"""

import dataclasses
import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from radimagenet_jax.data import features_file
from radimagenet_jax.data.features_file import Features
from radimagenet_jax.errors import DataError
from radimagenet_jax.models.layers import Head
from radimagenet_jax.models.network import HEAD
from radimagenet_jax.models.preprocess import PUBLISHED, Input
from radimagenet_jax.studies import plan
from radimagenet_jax.studies.images import Images
from radimagenet_jax.training import freezing, initialise
from radimagenet_jax.training.program import Program


class HeadAlone(nn.Module):
    """What a `models.Network` has after its pooled features, by the same name.

    Attributes:
      num_classes: Of the head.
      dropout: Before it, in training.
      head_init: 'glorot_uniform' or 'zeros'.
    """

    num_classes: int
    dropout: float
    head_init: str

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, mask: jax.Array | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Applies the head to features (N, C); returns what a `Network` does."""
        head = Head(self.num_classes, self.dropout, self.head_init, name=HEAD)
        logits = head(x, train=train)
        return logits, {"pooled": x, "logits": logits}


@dataclass(frozen=True)
class HeadProgram(Program):
    """The program of a head on features of so many `columns`."""

    columns: int = 0

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C,), a row of the table."""
        return (self.columns,)

    def prepared(self, examples: jax.Array) -> jax.Array:
        """The rows as they are: nothing is scaled."""
        return examples

    @functools.cached_property
    def exact_model(self) -> nn.Module:
        """The head, which is exact everywhere."""
        return HeadAlone(len(self.class_names), self.form.dropout, self.form.head_init)

    @property
    def model(self) -> nn.Module:
        """The head."""
        return self.exact_model

    @functools.cached_property
    def shapes(self) -> dict[str, dict]:
        """Shapes and dtypes of its variables."""
        rows = jax.ShapeDtypeStruct((1, self.columns), jnp.float32)
        return jax.eval_shape(lambda x: self.model.init(jax.random.key(0), x), rows)

    def scratch(self, seed: int) -> dict[str, dict]:
        """Random variables on the host, those of a network's head with as many features."""
        return initialise.drawn(self.shapes, seed, self.form.head_init)

    @functools.cached_property
    def freeze(self) -> freezing.Freeze:
        """The head learns, and there is nothing else."""
        return freezing.specify(self.form.structure, self.shapes, ())


@dataclass(frozen=True)
class TabledImages(Images):
    """The images of a task, of which `read` gives features (B, C) float32.

    Attributes:
      rows: (N, C) float32, in the order of the images' places.
    """

    rows: np.ndarray

    def read(self, places: np.ndarray) -> np.ndarray:
        """Returns (B, C) float32, the features of the images at B places."""
        return self.rows[places]


def program(single: ConfigDict, table: Features, class_names: tuple[str, ...]) -> HeadProgram:
    """The program of the heads on a table.

    Args:
      single: Of `plan.run_config`.
      table: The features.
      class_names: Of the head, in index order.
    """
    of_form = HeadProgram.of(single, Input(PUBLISHED), class_names)
    return dataclasses.replace(of_form, columns=table.pooled.shape[1])


def read(config: ConfigDict, run: plan.Run) -> Features:
    """Reads the table of a run.

    Raises:
      DataError: If it is none, see `features_file.read_any`.
    """
    return features_file.read_any(plan.table_path(config, run.init, run.task))


def check(config: ConfigDict) -> None:
    """Reads every table once, so that a wrong one is known before anything is computed.

    Raises:
      DataError: If one cannot be read.
    """
    for run in _one_a_table(config):
        read(config, run)


def digests(config: ConfigDict) -> dict[tuple[str, str], str]:
    """SHA-256 of the study's tables, by task and name."""
    return {
        (run.task, run.init): features_file.sha256(plan.table_path(config, run.init, run.task))
        for run in _one_a_table(config)
    }


def _one_a_table(config: ConfigDict) -> list[plan.Run]:
    return list({(r.task, r.init): r for r in plan.runs(config) if r.has_table}.values())


def tabled(images: Images, table: Features, name: str, path: str) -> TabledImages:
    """The images of a task with their features in the place of their pixels.

    Args:
      images: Of the task.
      table: The features, of these images and perhaps of others.
      name: Of the table, in the study.
      path: Of its file.

    Raises:
      DataError: If the table lacks images, with the first of them.
    """
    row_of = {key: row for row, key in enumerate(table.keys)}
    missing = [key for key in images.keys if key not in row_of]
    if missing:
        raise DataError(
            f"{path}, the table {name!r}, lacks {len(missing):,} of {len(images):,} images: "
            f"{features_file.named(missing)}; its own keys are like {table.keys[0]!r}. Compute "
            "their features too, under the data set's keys."
        )
    rows = table.pooled[[row_of[key] for key in images.keys]]
    kept = {field.name: getattr(images, field.name) for field in dataclasses.fields(Images)}
    return TabledImages(**kept, rows=rows)


def note(table: Features, name: str, path: str) -> str:
    """What a reader of the results must know of a table."""
    size = float(np.sqrt(np.mean(np.square(table.pooled, dtype=np.float64))))
    return (
        f"{name!r} is a table of {table.pooled.shape[1]:,} features an image that another model "
        f"computed ({path}, root mean square {size:.3g}): they are of unaugmented images, their "
        "heads were trained as with 'freezeall', and nothing was scaled; the table's sha256 is "
        f"{table.sha256}."
    )
