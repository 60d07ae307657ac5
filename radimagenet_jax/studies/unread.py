"""Fields of a study's command line that the study would pass over: refused, never ignored."""

from collections.abc import Iterator, Sequence

from ml_collections import ConfigDict

from radimagenet_jax.errors import ConfigError
from radimagenet_jax.studies import plan
from radimagenet_jax.training import fields

_OF_TRUNKS = ("study.memory_gib", "study.trunk_batch", "study.side_by_side")


def check(config: ConfigDict, overrides: Sequence[str]) -> None:
    """Refuses fields that the command line sets and nothing in the study reads.

    Args:
      config: The study's, checked by `plan.validate`.
      overrides: Such as '--config.study.trunk_batch=64'.

    Raises:
      ConfigError: With each of them, why it has no effect, and what has.
    """
    given = [text.removeprefix("--config.").partition("=")[0] for text in overrides]
    problems = list(_problems(config, dict.fromkeys(given)))
    if problems:
        raise ConfigError("; ".join(problems) + ".")


def _problems(config: ConfigDict, given: dict[str, None]) -> Iterator[str]:
    study = config.study
    has_trunk = any(group.has_trunk for group in plan.groups(config))
    several = len(study.tasks) > 1
    for name in given:
        nothing = f"config.{name} has no effect in this study"
        network = name.split(".")[2] if name.startswith("study.model_options.") else ""
        stated = fields.FIELDS.get(name)
        if stated is not None and stated.instead:
            yield f"{nothing}: {plan.instead_of(stated)}"
        elif name.startswith("model_options."):
            option = name.removeprefix("model_options.")
            yield f"{nothing}: set config.study.model_options.NETWORK.{option}"
        elif name in ("image_size", "batch_size") and (several or study[name]):
            why = "each task has its own" if several else f"config.study.{name} stands in its place"
            yield f"{nothing}, since {why}: set config.study.{name} alone"
        elif name in ("dataset.name", "dataset.positive") and plan.has_own_data(config):
            yield f"{nothing}, since each task has its own: take the page of one task"
        elif name in _OF_TRUNKS and not has_trunk:
            yield f"{nothing}: no setting has a frozen part that runs share"
        elif name == "study.views" and not any(plan.has_trunk(kept) for kept, _ in study.settings):
            yield f"{nothing}: no setting freezes a part of the network"
        elif name == "study.augment_seed" and config.augment == "none":
            yield f"{nothing}: config.augment='none' draws nothing"
        elif network and network not in study.models:
            yield f"{nothing}: {network} is not among config.study.models"
