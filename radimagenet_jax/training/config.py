"""Reading a config page, overriding its fields from the command line, and checking it."""

import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from radimagenet_jax import models
from radimagenet_jax.console import console
from radimagenet_jax.data import augment
from radimagenet_jax.errors import ConfigError, cut
from radimagenet_jax.files import expanded
from radimagenet_jax.training import fields, freezing, optimizers, pages, profiling
from radimagenet_jax.weights import hub

_MODEL = "--config.model="
# Checked by the network's class, and by `studies/plan.py`.
_CHECKED_ELSEWHERE = ("model_options.", "study.", "from_scratch.")


def load(page: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """Loads a config page and applies overrides.

    Args:
      page: The name of one of the project's pages or the path of a Python file with
        `get_config(argument)`, and optionally a colon and the argument, as in `covid:smoke` and
        `configs/covid.py:smoke`.
      overrides: Such as `--config.optimizer.learning_rate=1e-4`; the value is read as the type
        that the field has.

    Returns:
      The config, locked: it takes no further keys.

    Raises:
      ConfigError: If the page cannot be loaded, or an override names no field of it, has
        another type, or is an option of another optimiser.
    """
    config = pages.config_of(page)
    # The network first: it decides which options there are.
    network = [override for override in overrides if override.startswith(_MODEL)]
    others = [override for override in overrides if not override.startswith(_MODEL)]
    before = config.get("model")
    for override in network:
        _override(config, override)
    _follow(config, before)
    for override in others:
        _override(config, override)
    _check_optimizer(config, overrides)
    config.lock()
    return config


def _check_optimizer(config: ConfigDict, overrides: Sequence[str]) -> None:
    """Refuses options of an optimiser that another one is asked for by the command line."""
    chosen = config.get("optimizer")
    name = chosen.get("name") if isinstance(chosen, ConfigDict) else None
    if not isinstance(name, str) or name not in optimizers.OPTIMIZERS:
        return  # `validate` says so
    given = (text.removeprefix("--config.optimizer.").partition("=")[0] for text in overrides)
    for option in given:
        takers = [one for one, (_, takes) in optimizers.OPTIMIZERS.items() if option in takes]
        if takers and name not in takers:
            raise ConfigError(
                f"config.optimizer.{option} has no effect: {name} has no such option; leave it "
                f"out, or set config.optimizer.name to {' or '.join(takers)}."
            )


def _follow(config: ConfigDict, before: Any) -> None:
    """Makes a page that is for a small network one for a small network of another kind."""
    model = config.get("model")
    if model == before or not {model, before} <= set(models.names()):
        return
    entry, was = models.architecture(model), models.architecture(before)
    size = config.get("image_size")
    if isinstance(size, int) and was.min_image_size <= size < entry.min_image_size:
        config.image_size = entry.min_image_size
    options = config.get("model_options")
    if isinstance(options, ConfigDict) and set(options) - {"variant"}:
        kept = {name: options[name] for name in ("variant",) if name in options}
        config.model_options = ConfigDict({**entry.small, **kept})
        named = ", ".join(f"{name}={value!r}" for name, value in entry.small.items())
        console.print(
            f"{model} in the place of the page's small {before}: "
            f"{named or 'of its own size'}, images of {config.image_size} pixels; "
            f"--config.model_options.FIELD sets another size"
        )


def _override(config: ConfigDict, override: str) -> None:
    name, equals, text = override.removeprefix("--config.").partition("=")
    values = dict(flatten(config))
    parent, _, option = name.rpartition(".")
    # A study has options for each of its networks.
    model = config.get("model") if parent == "model_options" else None
    if "study" in config and parent.startswith("study.model_options."):
        model = parent.removeprefix("study.model_options.")
    if name not in values and model in models.names():
        known = models.architecture(model).options
        if option in known:
            values[name] = known[option]
        near = fields.near(name, [*values, *(f"{parent}.{each}" for each in known)])
    else:
        near = fields.near(name, values)
    if name not in values:
        raise ConfigError(f"the config has no field {name!r}; {near}.")
    if not equals:
        raise ConfigError(f"--config.{name} needs a value: --config.{name}=...")
    set_field(config, name, _parse(name, values[name], text))


def set_field(config: ConfigDict, name: str, value: Any) -> None:
    """Sets a field by its whole name, such as 'optimizer.learning_rate'."""
    *parents, leaf = name.split(".")
    node = config
    for each in parents:
        node = node[each]
    node[leaf] = value


def _parse(name: str, current: Any, text: str) -> Any:
    kind = type(current)
    try:
        if kind is bool:
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        if kind in (int, float, str):
            return kind(text)
        value = ast.literal_eval(text)
        if kind is tuple and not isinstance(value, tuple):
            value = tuple(value) if isinstance(value, list) else (value,)
        if not isinstance(value, kind):
            raise TypeError
    # The last two: brackets in brackets, more than Python's parser takes.
    except (KeyError, ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise ConfigError(
            f"--config.{name} takes a value of type {kind.__name__}, such as {current!r}, "
            f"not {fields.brief(text)}."
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
    values = {
        name: value for name, value in flatten(config) if not name.startswith(_CHECKED_ELSEWHERE)
    }
    problems = list(fields.problems(values))
    if not problems:
        problems = list(_contradictions(config))
    if config.get("model") in models.names():
        options = config.get("model_options")
        options = options.to_dict() if isinstance(options, ConfigDict) else options
        problems += fields.option_problems(config.model, options)
        smallest, size = models.architecture(config.model).min_image_size, config.get("image_size")
        if isinstance(size, int) and size < smallest:
            problems.append(
                f"config.image_size is {size}, but {config.model} takes {smallest} pixels at least"
            )
    if problems:
        raise ConfigError("; ".join(problems).rstrip("?.") + ".")


def _contradictions(config: ConfigDict) -> Iterator[str]:
    """What is wrong with fields that are each right by itself."""
    for check in (
        lambda: profiling.steps_of(config.profile),
        lambda: freezing.check(config.structure),
    ):
        try:
            check()
        except ConfigError as error:
            yield str(error).rstrip(".")
    if config.sampling == "balanced" and not config.shuffle:
        yield "config.sampling='balanced' needs config.shuffle=True"
    if config.label_smoothing and config.loss != "softmax":
        yield "config.label_smoothing needs config.loss='softmax'"
    if config.accumulate > config.batch_size:
        yield (
            f"config.accumulate is {config.accumulate}, but a batch of {config.batch_size} has not "
            "so many parts"
        )
    if config.export_weights and config.model_options:
        yield (
            "config.export_weights is for the published networks, without config.model_options; "
            "config.init takes the working directory of any run"
        )
    if config.dataset.workers and config.dataset.streaming in ("false", "sharded"):
        yield (
            "config.dataset.workers reads images from disk, but config.dataset.streaming="
            f"{config.dataset.streaming!r} has them on the devices; leave out one of the two"
        )
    if config.augment == "published" and not config.task:
        yield (
            "config.augment='published' needs one of the published tasks in config.task; "
            f"otherwise use {', '.join(augment.POLICIES)}"
        )


def to_json(config: ConfigDict) -> str:
    """The config as JSON, in the form that a run keeps as config.json."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True) + "\n"


def differences(
    config: ConfigDict,
    kept: dict[str, Any],
    stated: Mapping[str, fields.Field] = fields.FIELDS,
) -> list[str]:
    """What a config would compute otherwise than one kept in a working directory.

    Args:
      config: The new config.
      kept: The parsed config.json.
      stated: What is known of the fields.

    Returns:
      One 'field: kept -> new' for each difference that matters to the result.

    Raises:
      ConfigError: If what was kept cannot be a config.
    """
    before = {name: field.before for name, field in stated.items() if field.before is not None}
    before = json.loads(json.dumps(before))  # in the form in which a config is kept
    new = before | dict(flatten(ConfigDict(json.loads(to_json(config)))))
    try:
        old = before | dict(flatten(ConfigDict(kept)))
    # ConfigDict cannot hold every key that JSON can, nor read every nesting.
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(
            "the config that was kept in the working directory is damaged "
            f"({cut(str(error))}); give another working directory."
        ) from error
    for values in (new, old):
        # The same file by another name is the same.
        init = values.get("init")
        if isinstance(init, str) and init != "scratch" and not hub.is_address(init):
            values["init"] = str(expanded(init).absolute())
    return [
        f"{cut(name)}: {_shown(old.get(name))} -> {_shown(new.get(name))}"
        for name in sorted(new.keys() | old.keys())
        if new.get(name) != old.get(name)
        and not (name in stated and stated[name].changes is fields.Changes.NOTHING)
    ]


def _shown(value: Any) -> str:
    return cut(repr(value))
