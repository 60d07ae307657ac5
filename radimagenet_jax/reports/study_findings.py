"""What a study found: its files as they are, and the figures of the scores in them."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radimagenet_jax import own_files
from radimagenet_jax.data.tasks import TASKS
from radimagenet_jax.errors import DataError, cut
from radimagenet_jax.reports import study_files
from radimagenet_jax.statistics import comparisons, settings, tasks
from radimagenet_jax.statistics.comparisons import Comparison, Overall, Summary
from radimagenet_jax.statistics.pooled import Pooled, Row, finished, identity
from radimagenet_jax.statistics.settings import Setting
from radimagenet_jax.statistics.tasks import Joined
from radimagenet_jax.weights.contract import is_trained

# What the page takes from study.json.
_STUDY: Mapping[str, own_files.Form] = {
    "dataset": {"positive": str},
    **dict.fromkeys(("epochs", "image_size", "batch_size"), int),
    "study?": {"tasks?": [str], "note?": str},
    **dict.fromkeys(("task?", "loss?", "class_weights?", "augment?"), str),
    **dict.fromkeys(("label_smoothing?", "dropout?"), own_files.NUMBER),
    "optimizer?": {
        "name?": str,
        **dict.fromkeys(("momentum?", "weight_decay?", "clip_norm?"), own_files.NUMBER),
    },
}
_REMEDY = "run the study's command again"
_GROUP_REMEDY = "remove it, and the study's command computes the group again"
_HISTORY_REMEDY = "remove it, and the page shows the setting without its epochs"


@dataclass(frozen=True)
class Across:
    """A pair over several data sets.

    Attributes:
      totals: The pair on each data set, two or more.
      effect: Their mean difference.
    """

    totals: Sequence[Overall]
    effect: Joined

    @property
    def of(self) -> Overall:
        """One of the totals, for what all have in common."""
        return self.totals[0]


@dataclass(frozen=True)
class Findings:
    """A study, complete or not.

    Attributes:
      workdir: Where its files are.
      config: The part of study.json that a page takes.
      rows: Of study.csv.
      groups: What is kept of each, of the form `study_files.GROUP`.
      pooled: Each setting's scores, by `pooled.identity`.
    """

    workdir: Path
    config: Mapping[str, Any]
    rows: Sequence[Row]
    groups: Sequence[Mapping[str, Any]]
    pooled: Mapping[tuple[str, ...], Pooled]

    @property
    def failed(self) -> list[Row]:
        """The runs that failed."""
        return [row for row in self.rows if row["status"] != "ok"]

    @functools.cached_property
    def events(self) -> dict[str, str]:
        """The positive class of each data set."""
        return {name[0]: one.event for name, one in self.pooled.items()}

    @functools.cached_property
    def summaries(self) -> list[Summary]:
        """Of each initialisation on a data set."""
        return comparisons.summaries(self.rows)

    @functools.cached_property
    def settings(self) -> list[Setting]:
        """The figures of each setting."""
        return settings.describe(self.pooled)

    @functools.cached_property
    def comparisons(self) -> list[Comparison]:
        """Of pairs in a setting."""
        return comparisons.compare(self.pooled)

    @functools.cached_property
    def totals(self) -> list[Overall]:
        """Of pairs over the settings of a data set."""
        return comparisons.overall(self.pooled)

    @functools.cached_property
    def across(self) -> list[Across]:
        """Of pairs over data sets; none where there is one data set."""
        pairs: dict[tuple[str, ...], list[Overall]] = {}
        for one in self.totals:
            if one.effect.standard_error > 0:
                pairs.setdefault((one.factor, one.within, one.first, one.second), []).append(one)
        found = []
        for own in pairs.values():
            if len(own) > 1:
                values = [one.effect.value for one in own]
                errors = [one.effect.standard_error for one in own]
                found.append(Across(own, tasks.join(values, errors)))
        return found

    @functools.cached_property
    def origins(self) -> dict[str, str]:
        """What each initialisation is by its weights' contracts, not by its name in the study.

        'RadImageNet', 'ImageNet', 'random weights', 'another model’s features' or what the
        contract says, by the name of the initialisation; those of which nothing is kept are left
        out.
        """
        found: dict[str, str] = {}
        for group in self.groups:
            row = self.first_of(group)
            if row is not None and "features_file" in group:
                found[row["init"]] = "another model’s features"
            elif row is not None and "weights" in group:
                found[row["init"]] = _origin(group["weights"])
        return found

    @functools.cached_property
    def _by_run(self) -> dict[str, Row]:
        return {study_files.run_id(row): row for row in self.rows}

    def first_of(self, group: Mapping[str, Any]) -> Row | None:
        """The first run of a group that study.csv has; they differ in what is not the group's."""
        return next((self._by_run[run] for run in group["runs"] if run in self._by_run), None)

    def of_groups(self, name: str) -> list[Any]:
        """A field of the groups, of those that keep it: earlier versions did not keep all."""
        return [group[name] for group in self.groups if name in group]

    def histories(self, setting: tuple[str, ...]) -> list[list[dict[str, Any]]]:
        """The epochs of a setting's folds, of those whose history was kept.

        Args:
          setting: As of `pooled.identity`.

        Raises:
          DataError: If one is damaged.
        """
        paths = [
            study_files.history_path(self.workdir, study_files.run_id(row))
            for row in finished(self.rows)
            if identity(row) == setting
        ]
        return [
            own_files.read_json(path, study_files.HISTORY, _HISTORY_REMEDY)["epochs"]
            for path in paths
            if path.exists()
        ]


def read(workdir: Path) -> Findings:
    """Reads a study's files.

    Args:
      workdir: With study.csv, study.json, predictions/, histories/ and groups/.

    Raises:
      DataError: If one of these files is missing or damaged.
    """
    rows = study_files.read_rows(workdir)
    config = own_files.read_json(workdir / "study.json", _STUDY, _REMEDY)
    groups = [
        own_files.read_json(path, study_files.GROUP, _GROUP_REMEDY)
        for path in sorted(workdir.glob("groups/*.json"))
    ]
    pooled = study_files.pool(workdir, rows, _positives(config, rows))
    return Findings(workdir, config, rows, groups, pooled)


def _positives(config: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, str]:
    """The class meant by each task's AUROC, as the engine chose it."""
    named = config.get("study", {}).get("tasks", ())
    # As `plan.has_own_data` has it.
    if len(named) > 1 or (named and named[0] != config.get("task", named[0])):
        unknown = [row["dataset"] for row in rows if row["dataset"] not in TASKS]
        if unknown:
            raise DataError(
                f"study.csv names the task {cut(repr(unknown[0]))}, which is none of "
                f"{', '.join(TASKS)}; {_REMEDY}."
            )
        return {row["dataset"]: TASKS[row["dataset"]].positive for row in rows}
    return {row["dataset"]: config["dataset"]["positive"] for row in rows}


def _origin(weights: Mapping[str, Any] | None) -> str:
    if weights is None:
        return "random weights"
    said = str(weights.get("origin", ""))
    if is_trained(said):
        return said
    return next((name for name in ("RadImageNet", "ImageNet") if name in said), said)
