"""A finished run with the lesions of its validation and test images."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from radimagenet_jax import own_files
from radimagenet_jax.data import datasets, lesions, registry
from radimagenet_jax.errors import ConfigError, DataError
from radimagenet_jax.network import Network
from radimagenet_jax.pretrained import load_pretrained
from radimagenet_jax.weights import run as runs
from radimagenet_jax.wording import some

SPLITS = ("val", "test")
_CONFIG: Mapping[str, own_files.Form] = {
    "dataset": {"name": str, "data_dir": str, "fold": int, "positive": str},
}


@dataclass(frozen=True)
class Run:
    """A run whose network is asked where it looks.

    Attributes:
      folder: Its working directory, as it was given.
      net: Its best network.
      of: Name of the class whose map is judged.
      dataset: What it was trained on, on disk.
      lesions: Of 'val' and 'test'.
    """

    folder: Path
    net: Network
    of: str
    dataset: datasets.Dataset
    lesions: Mapping[str, lesions.Lesions]


def opened(folder: Path, of: str = "", data_dir: str = "") -> Run:
    """Opens a run and its data set.

    Args:
      folder: The run's working directory.
      of: The class whose map is judged; '' for the positive class.
      data_dir: The TFDS data directory; '' for the run's own.

    Raises:
      ConfigError: If there is no run, it is not finished, has no such class, or the data are not
        those that it was trained on.
      CheckpointError: If its best checkpoint is missing or damaged.
      DataError: If the data set has no masks, or one of the two splits no lesion.
    """
    runs.check_finished(folder)
    page = folder / "config.json"
    config = own_files.read_json(page, _CONFIG, "train the run again", ConfigError)["dataset"]
    net = load_pretrained(folder)
    positive = net.usage.positive or config["positive"] or "positive"
    index = net.class_index(of or positive)
    assert net.class_names is not None  # class_index has found one
    name = registry.with_fold(config["name"], config["fold"])
    where = data_dir or config["data_dir"]
    dataset = datasets.load(name, where, net.image_size, streaming="true")
    trained_on = runs.data_fingerprint(folder)
    if dataset.fingerprint != trained_on:
        raise ConfigError(
            f"{name} in {where} is not the data that {folder} was trained on (fingerprint "
            f"{dataset.fingerprint[:12]}, then {trained_on[:12]}); restore that data, or name "
            "where it is with --data_dir."
        )
    found = {split: lesions.find(getattr(dataset, split), name) for split in SPLITS}
    return Run(folder, net, net.class_names[index], dataset, found)


def check_same(run: Run, other: Run) -> None:
    """Refuses to compare two runs that were not tested on the same lesions.

    Raises:
      DataError: If one has test images that the other has not, or other pictures, classes or
        masks under their names.
    """
    keys, others = run.lesions["test"].keys, other.lesions["test"].keys
    for one, its, theirs in ((run, keys, others), (other, others, keys)):
        missing = [key for key in its if key not in set(theirs)]
        if missing:
            listed = some(missing, 3, lambda key: f"'{key}'")
            raise DataError(
                f"{run.folder} and {other.folder} were not tested on the same lesions: {listed} "
                f"of {one.folder} are not among the other's; compare two runs of one data "
                "set and fold."
            )
    if run.dataset.fingerprint != other.dataset.fingerprint:
        raise DataError(
            f"{run.folder} and {other.folder} were trained on different data ("
            f"{run.dataset.name}, {run.dataset.fingerprint[:12]}, and {other.dataset.name}, "
            f"{other.dataset.fingerprint[:12]}); compare two runs of one data set and fold."
        )
    # Masks are no part of the fingerprint: they may have been added since.
    pairs = ((run.lesions[split].shares, other.lesions[split].shares) for split in SPLITS)
    if not all(np.array_equal(one, another) for one, another in pairs):
        raise DataError(
            f"the masks of {run.dataset.name} are not the same in the data directories of "
            f"{run.folder} and {other.folder}; name one with --data_dir."
        )
