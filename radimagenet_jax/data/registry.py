"""Data sets by name: every folder of `tfds_builders` with a builder is one.

Adding the folder is all it takes; tfds_builders/README.md says how.
"""

import importlib
import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from radimagenet_jax import own_files
from radimagenet_jax.data.inputs import Reading
from radimagenet_jax.errors import DataError
from radimagenet_jax.files import expanded

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

DEFAULT_DATA_DIR = "~/tensorflow_datasets"
# In a data set's folder, what a preparation that has not ended has read (see `unfinished`).
UNFINISHED = ".unfinished"


def names() -> tuple[str, ...]:
    """Returns the names of all data sets, in alphabetical order, without importing any."""
    return tuple(
        sorted(
            path.parent.name
            for path in _builders_root().glob("*/*_dataset_builder.py")
            if path.name == f"{path.parent.name}_dataset_builder.py"
        )
    )


def listing() -> str:
    """Returns a line for each data set, its name and summary, for a command's help."""
    return "\n".join(f"  {name:<16} {summary(name)}" for name in names())


def summary(name: str) -> str:
    """Returns one line about a data set: the title of its builder's README.md."""
    text = (_builders_root() / name / "README.md").read_text(encoding="utf-8")
    return text.splitlines()[0].removeprefix("#").strip()


def manual_dir(name: str, data_dir: str | Path = DEFAULT_DATA_DIR) -> Path:
    """Returns where a data set's manual downloads belong."""
    return expanded(data_dir) / "downloads" / "manual" / name.partition("/")[0]


def builder(
    name: str, data_dir: str | Path = DEFAULT_DATA_DIR
) -> "tfds.core.GeneratorBasedBuilder":
    """Returns the TFDS builder of a data set.

    Args:
      name: A name of `names()`, or `<name>/<configuration>`; the first configuration is the
        default.
      data_dir: The TFDS data directory, which need not exist.

    Raises:
      DataError: If there is no such data set or configuration, what is prepared there is
        damaged, or this system cannot read prepared data sets.
    """
    dataset, _, config = name.partition("/")
    if dataset not in names():
        raise DataError(f"there is no data set '{dataset}'; there are {', '.join(names())}.")
    module = _module(dataset)
    folder = expanded(data_dir)
    # Own data have as many configurations as there are folders; their builder makes each on demand.
    make_config = getattr(module.Builder, "config_of_folder", None)
    known = [known.name for known in module.Builder.BUILDER_CONFIGS]
    if make_config is None and config and config not in known:
        raise DataError(
            f"the data set '{dataset}' has no configuration '{config}'; it has "
            f"{', '.join(known) or 'none: leave it out'}."
        )
    version = folder.joinpath(dataset, config or next(iter(known), ""), str(module.Builder.VERSION))
    try:
        chosen = make_config(config, folder) if make_config else config or None
        return module.Builder(data_dir=str(folder), config=chosen)
    except DataError:
        raise
    # TFDS parses what it finds in the folder of a prepared data set as soon as it is asked for
    # a builder; which errors come of damaged files is up to its parsers.
    except Exception as error:
        if not version.is_dir():
            raise
        raise damaged(version, error) from error


def reading(name: str, data_dir: str | Path = DEFAULT_DATA_DIR) -> Reading:
    """Returns how a data set shows its DICOM files, so that new ones are shown alike.

    Args:
      name: As for `builder`; that of a data set which is not known here gives the default, each
        file's own window.
      data_dir: The TFDS data directory. Where own data are not prepared there, what their table
        says is not known.

    Raises:
      DataError: If what is kept with own data is damaged.
    """
    dataset, _, config = name.partition("/")
    if dataset not in names():
        return Reading()
    module = _module(dataset)
    for known in module.Builder.BUILDER_CONFIGS:
        if known.name == config or not config:
            return Reading(getattr(known, "windows", ()), getattr(known, "unwrap", False))
    version = str(module.Builder.VERSION)
    path = expanded(data_dir).joinpath(dataset, config, version, "metadata.json")
    if not path.is_file():
        return Reading()
    remedy = f"delete {path.parent} and prepare the data set again"
    kept = own_files.read_json(path, {"windows?": [[own_files.NUMBER, 2]]}, remedy)
    windows = kept.get("windows", ())
    if not windows:
        return Reading()
    if len(windows) > 1:
        return Reading(
            note=f"{name} was shown through {len(windows)} windows, as its table says for each "
            "image; DICOM files are shown through their own here: give a table with windows, or "
            "--window."
        )
    # pydicom takes a while to import, which only the way here should pay.
    from radimagenet_jax.data.dicom_display import Window

    (center, width), *_ = windows
    return Reading(
        (Window(center, width),),
        note=f"DICOM images are shown through the window {center:g},{width:g}, as those of {name} "
        "were; --window shows others.",
    )


def with_fold(name: str, fold: int) -> str:
    """Returns the data set's name for one fold of a cross-validation.

    Fold 2 of `busi` is the configuration `busi/fold2`, and of `mrnet/acl` it is
    `mrnet/acl_fold2`; fold 0 is the data set as it is named.
    """
    if not fold:
        return name
    dataset, _, config = name.partition("/")
    return f"{dataset}/{config}_fold{fold}" if config else f"{dataset}/fold{fold}"


def is_prepared(name: str, data_dir: str | Path = DEFAULT_DATA_DIR) -> bool:
    """Returns whether a data set has been built in this data directory.

    Raises:
      DataError: As `builder` does.
    """
    return Path(builder(name, data_dir).data_dir).is_dir()


def damaged(folder: Path, error: Exception | str) -> DataError:
    """Returns the error for a prepared data set that cannot be read."""
    reason = str(error).strip().splitlines()
    return DataError(
        f"the prepared data set in {folder} is damaged ({reason[0] if reason else 'unreadable'}); "
        "delete this folder and prepare it again."
    )


def _module(dataset: str) -> ModuleType:
    if importlib.util.find_spec("array_record") is None:
        raise DataError(
            f"the data set '{dataset}' needs the package array_record, which has no version for "
            "Windows; prepare data sets and train under Linux, macOS or WSL."
        )
    # TFDS takes two thirds of a second to import: only who touches data pays for it.
    return importlib.import_module(f"tfds_builders.{dataset}.{dataset}_dataset_builder")


@cache
def _builders_root() -> Path:
    spec = importlib.util.find_spec("tfds_builders")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("the package tfds_builders is not installed beside radimagenet_jax.")
    return Path(spec.submodule_search_locations[0])
