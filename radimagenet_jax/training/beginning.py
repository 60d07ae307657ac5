"""`config.init="auto"`: RadImageNet's weights where they lie, else a recipe that does without."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from radimagenet_jax import models, own_files
from radimagenet_jax.console import console
from radimagenet_jax.errors import ConfigError
from radimagenet_jax.files import expanded
from radimagenet_jax.training.config import flatten, set_field
from radimagenet_jax.weights import native

AUTO = "auto"
# Names a weight file, or a folder of them, for all runs of a machine.
ENVIRONMENT = "RADIMAGENET_WEIGHTS"
_RECIPE = "from_scratch"


def settle(config: ConfigDict, overrides: Sequence[str], workdir: str | Path) -> None:
    """Decides what a run begins with, and says so.

    With `config.init="auto"`, weights that are found give the page as it is, the published line;
    without any, `config.from_scratch` takes the place of its fields, those left out that the user
    has set. A run that has begun goes on with what it began with.

    Args:
      config: Of a page, unlocked or not; it is changed, and loses `from_scratch`.
      overrides: That the user has given, such as `--config.epochs=3`.
      workdir: Of the run.

    Raises:
      ConfigError: If `$RADIMAGENET_WEIGHTS` names nothing.
    """
    recipe = config.get(_RECIPE, ConfigDict())
    with config.unlocked():
        if _RECIPE in config:
            del config[_RECIPE]
        if config.get("init") != AUTO or config.get("model") not in models.names():
            return
        kept = _kept(expanded(workdir) / "config.json")
        found = find(config.model, config.dataset.data_dir) if kept is None else kept
        if found not in (None, "scratch"):
            config.init = str(found)
            if kept is None:
                console.print(f"beginning with {found}")
            return
        config.init = "scratch"
        given = {each.removeprefix("--config.").partition("=")[0] for each in overrides}
        changed = {name: value for name, value in flatten(recipe) if name not in given}
        for name, value in changed.items():
            set_field(config, name, value)
    if kept is None:
        for line in _without_weights(config.model, config.dataset.data_dir, changed):
            console.print(line)


def find(model: str, data_dir: str) -> Path | None:
    """Looks for RadImageNet's weights of a network.

    Args:
      model: A name of `models.names()`.
      data_dir: Of the data sets; its `weights/` is looked into if the environment says nothing.

    Returns:
      A file or converted folder, None if there is none.

    Raises:
      ConfigError: If `$RADIMAGENET_WEIGHTS` names nothing that is there.
    """
    said = os.environ.get(ENVIRONMENT)
    place = expanded(said) if said else expanded(data_dir) / "weights"
    if said and not place.exists():
        raise ConfigError(
            f"${ENVIRONMENT} is {said}, which is not there; correct it, or unset it to begin "
            "without weights."
        )
    if place.is_file() or native.is_converted(place):
        return place
    there = (place / name for name in file_names(model))
    return next((path for path in there if path.is_file() or native.is_converted(path)), None)


def file_names(model: str) -> tuple[str, ...]:
    """What weights of a network are called in a folder of weights, the released file first."""
    released = models.architecture(model).released
    return (*((f"RadImageNet-{released}_notop.h5",) if released else ()), model)


def _without_weights(model: str, data_dir: str, changed: dict[str, Any]) -> list[str]:
    title = models.architecture(model).title
    fields = ", ".join(f"{name}={value}" for name, value in changed.items())
    lines = [
        f"no RadImageNet weights for {title}: beginning with random ones"
        + (f", by the page's recipe for them ({fields})" if fields else "")
    ]
    if models.architecture(model).released:
        lines.append(
            f"to begin with RadImageNet's, request {file_names(model)[0]} as "
            "https://github.com/BMEII-AI/RadImageNet says and put it into "
            f"{expanded(data_dir) / 'weights'}"
        )
    return lines


def _kept(page: Path) -> str | None:
    """What a run that has begun begins with; None if none has."""
    if not page.is_file() or not any(page.parent.glob("checkpoints/[0-9]*")):
        return None
    remedy = "give another working directory"
    return own_files.read_json(page, {"init": str}, remedy, ConfigError)["init"]
