"""What each field of a config may be and what it changes, stated here once and read from here.

A new option is a line in `configs/base.py`, with its default and what it means, and a line in
`FIELDS`; a test compares the two. A network's own options have their ranges on its page
(`models.Network.limits`), and a study's are in `studies/plan.py`.
"""

import dataclasses
import difflib
import enum
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

from radimagenet_jax import models
from radimagenet_jax.data import augment, tasks
from radimagenet_jax.models import preprocess
from radimagenet_jax.models.layers import PRECISIONS
from radimagenet_jax.training import losses, optimizers, schedules

# Positive numbers that float32 holds, at the lower end with room for a product.
_TINY = 1e-20
_LARGEST = 3.4e38
_SEEDS = 2**32 - 1
_TEXT = 4000
# A value in a message; a field's name and remedy need room too.
_SHOWN = 100
# Blocks of a network in all: DenseNet-264 has 130. Compiling takes time with each.
_MOST_BLOCKS = 160


class Changes(enum.Enum):
    """What another value of a field makes another of."""

    PROGRAM = "what is compiled"
    RUN = "what a run gives to its program, or computes by it"
    NOTHING = "how a run is fed and watched; the result is the same"


@dataclasses.dataclass(frozen=True)
class Field:
    """What a value may be, and what it is for.

    Attributes:
      takes: Whether a value is of the type and in the range.
      rule: What it must be, as in 'must be true or false'.
      changes: What another value makes another of.
      in_study: The only value that a study takes; None where it takes any.
      instead: What a study has in the place of the field, such as 'study.models'.
      before: By which value versions computed that had not the field, so that a working directory
        without it belongs to the same run; None for a field that was always there.
    """

    takes: Callable[[Any], bool]
    rule: str | Callable[[], str]
    changes: Changes = Changes.PROGRAM
    in_study: Any = None
    instead: str = ""
    before: Any = None

    def of_run(self) -> Self:
        """The same, which a run gives to its program or computes by it."""
        return dataclasses.replace(self, changes=Changes.RUN)

    def of_feeding(self) -> Self:
        """The same, which changes how a run is fed and watched alone."""
        return dataclasses.replace(self, changes=Changes.NOTHING)

    def single(self, value: Any) -> Self:
        """The same, of single runs: a study takes this value only."""
        return dataclasses.replace(self, in_study=value)

    def study_has(self, instead: str, value: Any = None) -> Self:
        """The same, for which a study has a field of its own: this one stays at its value."""
        return dataclasses.replace(self, in_study=value, instead=instead)

    def added(self, before: Any) -> Self:
        """The same, which earlier versions had not: they computed as by this value."""
        return dataclasses.replace(self, before=before)

    def problem(self, name: str, value: Any) -> str | None:
        """What is wrong with a value, or None."""
        if self.takes(value):
            return None
        rule = self.rule if isinstance(self.rule, str) else self.rule()
        return f"config.{name} is {brief(value)}, but {rule}"


def brief(value: Any) -> str:
    """A value as it is written in Python, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no integer of more than 4,300 digits
        text = f"a {type(value).__name__} that is too long to be written"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ... ({len(text):,} characters)"


def flag() -> Field:
    """True or false."""
    return Field(lambda value: isinstance(value, bool), "must be true or false")


def whole(low: int, high: int, rule: str = "") -> Field:
    """A whole number from `low` to `high`, both taken."""
    return Field(
        lambda value: _is_whole(value) and low <= value <= high,
        rule or f"must be a whole number, at least {low} and at most {high}",
    )


def number(low: float, high: float, rule: str = "") -> Field:
    """A finite number from `low` to `high`, both taken."""
    return Field(
        lambda value: _is_number(value) and low <= value <= high,
        rule or f"must be a number from {low:g} to {high:g}",
    )


def positive(high: float) -> Field:
    """A number above 0."""
    return number(_TINY, high, f"must be positive: from {_TINY:g} to {high:g}")


def not_negative(high: float) -> Field:
    """A number from 0."""
    return number(0, high, f"must not be negative: from 0 to {high:g}")


def share() -> Field:
    """A number from 0 to below 1, such as a probability that is not certain."""
    return Field(lambda value: _is_number(value) and 0 <= value < 1, "must be from 0 to below 1")


def one_of(known: Sequence[str] | Callable[[], Iterable[str]]) -> Field:
    """One of some words."""
    words = known if callable(known) else lambda: known
    return Field(
        lambda value: isinstance(value, str) and value in tuple(words()),
        lambda: f"must be one of {', '.join(map(str, words()))}",
    )


def text(longest: int = _TEXT) -> Field:
    """A printable text."""
    return Field(
        lambda value: isinstance(value, str) and len(value) <= longest and value.isprintable(),
        f"must be a printable text of at most {longest} characters",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Several(Field):
    """What a tuple of values that differ may be.

    Attributes:
      element: What each of them may be.
      least: How many there are at least.
      most: How many there are at most.
    """

    element: Field
    least: int
    most: int

    def problem(self, name: str, value: Any) -> str | None:
        """What is wrong with a tuple, or None."""
        if not isinstance(value, (tuple, list)):
            return f"config.{name} is {brief(value)}, but must be a tuple, such as (a, b) or (a,)"
        if len(value) < self.least:
            return f"config.{name} is empty; name one at least"
        if len(value) > self.most:
            return f"config.{name} has {len(value):,} values, but {self.most:,} at most are taken"
        for one in value:
            problem = self.element.problem(name, one)
            if problem:
                return f"{problem} (it is one of {brief(value)})"
        for place, one in enumerate(value):
            if one in value[:place]:
                return f"config.{name} has {brief(one)} twice; name each once"
        return None


def several(element: Field, least: int = 1, most: int = 1000) -> Field:
    """A tuple of values that differ."""
    return Several(lambda value: False, "", element=element, least=least, most=most)


def pair(first: Field, second: Field, rule: str) -> Field:
    """A tuple of two values of their own kinds."""
    return Field(
        lambda value: (
            isinstance(value, (tuple, list))
            and len(value) == 2
            and first.takes(value[0])
            and second.takes(value[1])
        ),
        rule,
    )


# What is not said to be of a run or its feeding is compiled into the program.
FIELDS: Mapping[str, Field] = {
    "task": one_of(lambda: ("", *tasks.TASKS)).study_has("study.tasks"),
    "dataset.name": text(255).of_run(),
    "dataset.data_dir": text().of_feeding(),
    "dataset.fold": whole(0, 1000).of_run().study_has("study.folds"),
    "dataset.streaming": one_of(("auto", "true", "false", "sharded", "decoded")).of_feeding(),
    "dataset.workers": whole(0, 1000).of_feeding().single(0),
    "dataset.memory_gib": Field(
        lambda value: _is_number(value) and (value == -1 or 0 <= value <= 1e6),
        "must be a number from 0 to 1e+06, or -1",
    ).of_feeding(),
    "dataset.positive": text().of_run(),
    "dataset.prevalence": share().of_run().single(0.0).added(0.0),
    "model": one_of(models.names).study_has("study.models", "resnet50"),
    "init": text().of_run().study_has("study.inits", "scratch"),
    "preprocessing": one_of(("published", "native", *preprocess.SCHEMES)).study_has(
        "study.preprocessing", "published"
    ),
    "allow_preprocessing_mismatch": flag().single(False),
    "structure": text(1000).study_has("study.settings", "unfreezeall"),
    "dropout": share(),
    "head_init": one_of(("glorot_uniform", "zeros")),
    "loss": one_of(tuple(losses.LOSSES)),
    "batch_norm_momentum": share(),
    "batch_norm_statistics": one_of(("global", "per_device")).single("global"),
    "dtype": one_of(("float32", "bfloat16")),
    "precision": one_of(tuple(PRECISIONS)).added("auto"),
    "deterministic": flag().of_run().added(True),
    "optimizer.name": one_of(tuple(optimizers.OPTIMIZERS)),
    "optimizer.learning_rate": positive(_LARGEST)
    .of_run()
    .study_has("study.settings"),  # a run says at which step it diverges
    "optimizer.b1": share(),
    "optimizer.b2": share(),
    "optimizer.eps": positive(1),
    "optimizer.momentum": share(),
    "optimizer.weight_decay": not_negative(1000).added(1e-4),
    "optimizer.clip_norm": not_negative(1e20).added(0.0),
    "schedule.name": one_of(schedules.NAMES).single("constant"),
    "schedule.warmup_epochs": not_negative(100_000).single(0.0),
    "label_smoothing": share(),
    "sampling": one_of(("uniform", "balanced")).of_run().single("uniform"),
    "class_weights": one_of(("none", "balanced")),
    "export_weights": flag().of_run().single(False),
    "batch_size": whole(1, 2**20),
    "image_size": whole(1, 8192),
    "epochs": whole(1, 100_000).of_run(),
    "augment": one_of(lambda: ("published", *augment.POLICIES)),
    "augment_seed": whole(-1, _SEEDS, f"must be a whole number from -1 to {_SEEDS}")
    .of_run()
    .study_has("study.augment_seed", -1),
    "shuffle": flag().of_run(),
    "seed": whole(0, _SEEDS, f"must be a whole number from 0 to {_SEEDS}")
    .of_run()
    .study_has("study.seeds", 0),
    "accumulate": whole(1, 2**20, f"must be a whole number, 1 or more, and at most {2**20}").single(
        1
    ),
    "remat": one_of(("none", "norms", "blocks")),
    "ema": share().single(0.0),
    "scan": one_of(("auto", "true", "false")).of_run().single("auto"),
    "shard_optimizer": flag().of_run().single(False),
    "profile": text(40).of_feeding().single(""),
    "mesh.data": whole(-1, 2**20, "must be a number of devices, or -1 for all").of_run().single(-1),
    "log_every": whole(1, 2**31 - 1).of_feeding().single(10),
    "checkpoint_every": whole(0, 2**31 - 1).of_feeding().single(0),
}


def problems(values: Mapping[str, Any], fields: Mapping[str, Field] = FIELDS) -> Iterator[str]:
    """What is wrong with the fields of a config, in the order of the table.

    Args:
      values: By name, such as 'optimizer.learning_rate'.
      fields: What they may be; all of them must be there, and no others.
    """
    for name in sorted(fields.keys() - values.keys()):
        yield f"config.{name} is missing: begin the page with base.get_config()"
    for name in sorted(values.keys() - fields.keys()):
        close = difflib.get_close_matches(name[:_SHOWN], list(fields), n=1)
        remedy = f"did you mean {close[0]}?" if close else "take it out of the page"
        yield f"the config has a field {brief(name)} that nothing reads; {remedy}"
    for name, field in fields.items():
        problem = field.problem(name, values[name]) if name in values else None
        if problem:
            yield problem


def near(name: str, known: Iterable[str]) -> str:
    """Which of the known names was probably meant."""
    # Names that are no names would be compared letter by letter.
    close = difflib.get_close_matches(name[:_SHOWN], list(known), n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else f"the fields are {', '.join(known)}"


def option_problems(model: str, given: Any, where: str = "model_options") -> Iterator[str]:
    """What is wrong with the further fields of a network's class.

    Args:
      model: A name of `models.names()`.
      given: `config.model_options`, as a dict.
      where: Its own name in the config.
    """
    if not isinstance(given, Mapping):
        yield f"config.{where} is {brief(given)}, but must hold fields of the network's class"
        return
    entry = models.architecture(model)
    known = entry.options
    for name, value in given.items():
        if name not in known:
            yield (
                f"config.{where} has {brief(name)}, but {model} has no such field; "
                f"{near(str(name), known)}"
            )
        elif name == "variant":
            if value not in entry.variants:
                variants = ", ".join(map(repr, entry.variants))
                yield f"config.{where}.variant is {brief(value)}, but {model} has {variants}"
        else:
            limits = entry.build.limits.get(name)
            problem = _option(known[name], limits).problem(f"{where}.{name}", value)
            if problem:
                yield problem


def _option(default: Any, limits: Any) -> Field:
    """What a field of a network may be: what its page says, or what is like its default."""
    if isinstance(default, bool):
        return flag()
    if isinstance(default, tuple) and default and all(map(_is_whole, default)):
        each = limits if limits and isinstance(limits[0], tuple) else None
        if each:
            bounds = ", ".join(f"{low} to {high}" for low, high in each)
            return Field(
                lambda value: (
                    _is_blocks(value)
                    and len(value) == len(each)
                    and all(low <= n <= high for n, (low, high) in zip(value, each, strict=True))
                ),
                f"must be a tuple of {len(each)} whole numbers, {bounds}",
            )
        low, high = limits or (0, _MOST_BLOCKS)
        return Field(
            lambda value: (
                _is_blocks(value)
                and 1 <= len(value) <= len(default)
                and all(low <= n <= high for n in value)
            ),
            f"must be a tuple of 1 to {len(default)} whole numbers, each from {low} to {high}, "
            f"and {_MOST_BLOCKS} in all at most",
        )
    if _is_whole(default):
        return whole(*(limits or (0, 2**16)))
    if isinstance(default, float):
        return number(*(limits or (-1e9, 1e9)))
    # A network of somebody's own, with a field that only it understands.
    kinds = Mapping if isinstance(default, Mapping) else type(default)
    return Field(
        lambda value: default in (None, dataclasses.MISSING) or isinstance(value, kinds),
        f"must be of type {type(default).__name__}",
    )


def _is_blocks(value: Any) -> bool:
    return (
        isinstance(value, (tuple, list))
        and all(map(_is_whole, value))
        and sum(value) <= _MOST_BLOCKS
    )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    # A whole number may be beyond what a float can be, which `isfinite` makes one.
    return (isinstance(value, float) and math.isfinite(value)) or _is_whole(value)
