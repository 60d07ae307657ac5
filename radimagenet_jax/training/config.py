"""Reading a config page, overriding its fields from the command line, and checking it."""

import ast
import difflib
import importlib.util
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from radimagenet_jax import models, own_files
from radimagenet_jax.data import augment, tasks
from radimagenet_jax.errors import ConfigError
from radimagenet_jax.models import preprocess
from radimagenet_jax.training import losses, optimizers, profiling, schedules

# The pages of this project, for a page elsewhere that builds on `configs.base`.
_PROJECT = Path(__file__).resolve().parents[2]

# Fields that earlier versions had not, with the values by which those computed: a working directory
# that lacks them belongs to the same run.
_ADDED: dict[str, Any] = {"optimizer.weight_decay": 1e-4, "optimizer.clip_norm": 0.0}

# Fields that change how a run is watched or where its data lie, not what it computes.
_FREE_FIELDS = frozenset(
    {
        "dataset.data_dir",
        "dataset.streaming",
        "dataset.memory_gib",
        "log_every",
        "checkpoint_every",
        "profile",
    }
)


def load(page: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """Loads a config page and applies overrides.

    Args:
      page: Path of a Python file with `get_config(argument)`, and optionally a colon and the
        argument, as in `configs/covid.py:smoke`.
      overrides: Such as `--config.optimizer.learning_rate=1e-4`; the value is read as the type
        that the field has.

    Returns:
      The config, locked: it takes no further keys.

    Raises:
      ConfigError: If the page cannot be loaded, or an override names no field of it or has
        another type.
    """
    path_text, _, argument = page.partition(":")
    path = Path(path_text)
    if not path.is_file():
        raise ConfigError(f"there is no config page {path_text}; the project's are in configs/.")
    for folder in (_PROJECT, path.resolve().parents[1]):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    spec = importlib.util.spec_from_file_location(f"config_page_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path_text} is not a Python file; a config page has get_config().")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.get_config(argument or None)
    except Exception as error:  # a page is the user's program: whatever it raises is its mistake
        raise ConfigError(
            f"config page {page} cannot be loaded: {type(error).__name__}: {error}."
        ) from error
    for override in overrides:
        _override(config, override)
    config.lock()
    return config


def _override(config: ConfigDict, override: str) -> None:
    name, equals, text = override.removeprefix("--config.").partition("=")
    fields = dict(flatten(config))
    if name not in fields:
        near = difflib.get_close_matches(name, fields, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"the fields are {', '.join(fields)}."
        raise ConfigError(f"the config has no field {name!r}; {hint}")
    if not equals:
        raise ConfigError(f"--config.{name} needs a value: --config.{name}=...")
    *parents, leaf = name.split(".")
    node = config
    for parent in parents:
        node = node[parent]
    node[leaf] = _parse(name, fields[name], text)


def _parse(name: str, current: Any, text: str) -> Any:
    kind = type(current)
    try:
        if kind is bool:
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        if kind in (int, float, str):
            return kind(text)
        value = ast.literal_eval(text)
        if kind is tuple and not isinstance(value, tuple):
            value = (value,)
        if not isinstance(value, kind):
            raise TypeError
    except (KeyError, ValueError, TypeError, SyntaxError) as error:
        raise ConfigError(
            f"--config.{name} takes a value of type {kind.__name__}, such as {current!r}, "
            f"not {text!r}."
        ) from error
    return value


def flatten(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All fields of a config as ('optimizer.learning_rate', value)."""
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def validate(config: ConfigDict) -> None:
    """Checks every field that can be checked before any data is read.

    Raises:
      ConfigError: With all that is wrong, in one message.
    """
    problems = []

    def one_of(field: str, value: str, known: Sequence[str]) -> None:
        if value not in known:
            problems.append(f"config.{field} is {value!r}, but must be one of {', '.join(known)}")

    one_of("model", config.model, models.names())
    one_of("dtype", config.dtype, ("float32", "bfloat16"))
    one_of("head_init", config.head_init, ("glorot_uniform", "zeros"))
    one_of("loss", config.loss, tuple(losses.LOSSES))
    one_of("optimizer.name", config.optimizer.name, tuple(optimizers.OPTIMIZERS))
    one_of("preprocessing", config.preprocessing, ("published", "native", *preprocess.SCHEMES))
    one_of("augment", config.augment, ("published", *augment.POLICIES))
    one_of("schedule.name", config.schedule.name, schedules.NAMES)
    one_of("scan", config.scan, ("auto", "true", "false"))
    one_of("batch_norm_statistics", config.batch_norm_statistics, ("global", "per_device"))
    one_of("remat", config.remat, ("none", "norms", "blocks"))
    try:
        profiling.steps_of(config.profile)
    except ConfigError as error:
        problems.append(str(error).rstrip("."))
    if not 0 <= config.ema < 1:
        problems.append(f"config.ema is {config.ema}, but must be from 0 to below 1")
    if config.accumulate < 1:
        problems.append(f"config.accumulate is {config.accumulate}, but must be 1 or more")
    one_of("sampling", config.sampling, ("uniform", "balanced"))
    one_of("class_weights", config.class_weights, ("none", "balanced"))
    if config.sampling == "balanced" and not config.shuffle:
        problems.append("config.sampling='balanced' needs config.shuffle=True")
    if not 0 <= config.label_smoothing < 1:
        problems.append(
            f"config.label_smoothing is {config.label_smoothing}, but must be from 0 to below 1"
        )
    if config.label_smoothing and config.loss != "softmax":
        problems.append("config.label_smoothing needs config.loss='softmax'")
    if config.schedule.warmup_epochs < 0:
        problems.append("config.schedule.warmup_epochs must not be negative")
    if config.export_weights and config.model_options:
        problems.append(
            "config.export_weights is for the published networks, without config.model_options; "
            "config.init takes the working directory of any run"
        )
    one_of("dataset.streaming", config.dataset.streaming, ("auto", "true", "false"))
    one_of("task", config.task, ("", *tasks.TASKS))
    if config.augment == "published" and not config.task:
        problems.append(
            "config.augment='published' needs one of the published tasks in config.task; "
            f"otherwise use {', '.join(augment.POLICIES)}"
        )
    for field, low in (("batch_size", 1), ("epochs", 1), ("log_every", 1), ("checkpoint_every", 0)):
        if config[field] < low:
            problems.append(f"config.{field} is {config[field]}, but must be at least {low}")
    if not 0 <= config.seed < 2**32:
        problems.append(f"config.seed is {config.seed}, but must be from 0 to 4294967295")
    if not -1 <= config.augment_seed < 2**32:
        problems.append(
            f"config.augment_seed is {config.augment_seed}, but must be from -1 to 4294967295"
        )
    if not 0 <= config.dropout < 1:
        problems.append(f"config.dropout is {config.dropout}, but must be from 0 to below 1")
    if config.model in models.names():
        smallest = models.architecture(config.model).min_image_size
        if config.image_size < smallest:
            problems.append(
                f"config.image_size is {config.image_size}, but {config.model} takes "
                f"{smallest} pixels at least"
            )
    for field in ("weight_decay", "clip_norm"):
        if not config.optimizer[field] >= 0:
            problems.append(f"config.optimizer.{field} must not be negative")
    if not config.optimizer.learning_rate > 0:
        problems.append("config.optimizer.learning_rate must be positive")
    if problems:
        raise ConfigError("; ".join(problems) + ".")


def to_json(config: ConfigDict) -> str:
    """The config as JSON, in the form that a run keeps as config.json."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True) + "\n"


def differences(config: ConfigDict, kept: dict[str, Any]) -> list[str]:
    """What a config would compute otherwise than one kept in a working directory.

    Args:
      config: The new config.
      kept: The parsed config.json.

    Returns:
      One 'field: kept -> new' for each difference that matters to the result.

    Raises:
      ConfigError: If what was kept cannot be a config.
    """
    new = _ADDED | dict(flatten(ConfigDict(json.loads(to_json(config)))))
    try:
        old = _ADDED | dict(flatten(ConfigDict(kept)))
    # ConfigDict cannot hold every key that JSON can, nor read every nesting.
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(
            "the config that was kept in the working directory is damaged "
            f"({own_files.cut(str(error))}); give another working directory."
        ) from error
    return [
        f"{own_files.cut(field)}: {_shown(old.get(field))} -> {_shown(new.get(field))}"
        for field in sorted(new.keys() | old.keys())
        if field not in _FREE_FIELDS and new.get(field) != old.get(field)
    ]


def _shown(value: Any) -> str:
    return own_files.cut(repr(value))
