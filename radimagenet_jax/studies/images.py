"""The images of a task: of all its folds at once, each only once."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from radimagenet_jax.data import datasets
from radimagenet_jax.data.streaming import StreamedSplit
from radimagenet_jax.errors import DataError, UserError

Source = datasets.Split | StreamedSplit


@dataclass(frozen=True)
class Images:
    """All images of some folds of a data set.

    An image's place is its index here, whatever fold and split it is met in.

    Attributes:
      class_names: In the order of the labels.
      keys: N unique names.
      patients: N pseudonyms, '' where the patient is unknown.
      labels: (N,) int32.
      ids: (N,) uint32, what the draws of augmentation depend on.
      splits: For each fold, the places of 'train', 'val' and 'test' in the fold's own order.
      notes: What a reader of the results should know of the data.
      refused: Folds that cannot be used, each with the reason.
      fingerprints: Of each fold's data set.
      terms: One sentence on what the images may be used for.
    """

    class_names: tuple[str, ...]
    keys: tuple[str, ...]
    patients: tuple[str, ...]
    labels: np.ndarray
    ids: np.ndarray
    splits: Mapping[int, Mapping[str, np.ndarray]]
    notes: tuple[str, ...]
    refused: Mapping[int, str]
    fingerprints: Mapping[int, str]
    terms: str
    _sources: tuple[Source, ...]
    _origin: np.ndarray  # (N, 2): index of the source, and the place there

    def __len__(self) -> int:
        return len(self.keys)

    @functools.cached_property
    def shape(self) -> tuple[int, int, int]:
        """(S, S, C) of each image as `read` gives it; C is 1 if no image has colour, else 3."""
        # One image tells a source's shape; of a streamed one it has to be decoded, so only once.
        shapes = [source.read([0]).shape[1:] for source in self._sources]
        return (*shapes[0][:2], max(shape[-1] for shape in shapes))

    def read(self, places: np.ndarray) -> np.ndarray:
        """Returns (B, S, S, C) uint8, the images at B places.

        Raises:
          DataError: If files are damaged.
        """
        origin = self._origin[places]
        result = np.empty((len(places), *self.shape), np.uint8)
        for number in np.unique(origin[:, 0]):
            chosen = np.flatnonzero(origin[:, 0] == number)
            # A grey image fills all channels.
            result[chosen] = self._sources[number].read(origin[chosen, 1])
        return result


def gather(folds: Sequence[int], load: Callable[[int], datasets.Dataset]) -> Images:
    """Opens the folds of a data set and brings their images together.

    Args:
      folds: Their numbers; one that cannot be used is noted in the result, not raised.
      load: Opens a fold, as `datasets.load` does.

    Raises:
      UserError: If no fold can be used; the error of the first.
      DataError: If two folds contradict each other.
    """
    sources: list[Source] = []
    places: dict[str, int] = {}
    columns: dict[str, list] = {"patients": [], "labels": [], "ids": [], "origin": []}
    splits: dict[int, dict[str, np.ndarray]] = {}
    refused: dict[int, str] = {}
    fingerprints: dict[int, str] = {}
    notes: dict[str, None] = {}
    terms = ""
    class_names: tuple[str, ...] = ()
    failure: UserError | None = None
    for fold in folds:
        try:
            dataset = load(fold)
            _check_classes(dataset)
        except UserError as error:
            refused[fold], failure = str(error), failure or error
            continue
        if class_names and dataset.class_names != class_names:
            raise DataError(f"the folds of {dataset.name} have different classes; prepare it anew.")
        class_names = dataset.class_names
        fingerprints[fold], terms = dataset.fingerprint, dataset.terms
        known = [*dataset.notes, *_single_classes(dataset)]
        notes |= dict.fromkeys(f"fold {fold}: {note}" if fold else note for note in known)
        splits[fold] = {}
        for name in datasets.SPLITS:
            split: Source = getattr(dataset, name)
            number = len(sources)
            met = np.empty(len(split), np.int64)
            used = False
            for k, key in enumerate(split.keys):
                if key not in places:
                    used = True
                    places[key] = len(places)
                    columns["patients"].append(split.patients[k])
                    columns["labels"].append(split.labels[k])
                    columns["ids"].append(split.ids[k])
                    columns["origin"].append((number, k))
                elif columns["labels"][places[key]] != split.labels[k]:
                    raise DataError(
                        f"'{key}' has another label in fold {fold} of {dataset.name} than in a "
                        "fold before; prepare the data set anew."
                    )
                met[k] = places[key]
            splits[fold][name] = met
            # What holds no image of its own is let go: five folds would hold them five times.
            if used:
                sources.append(split)
    if failure is not None and not splits:
        raise failure
    return Images(
        class_names=class_names,
        keys=tuple(places),
        patients=tuple(columns["patients"]),
        labels=np.array(columns["labels"], np.int32),
        ids=np.array(columns["ids"], np.uint32),
        splits=splits,
        notes=tuple(notes),
        refused=refused,
        fingerprints=fingerprints,
        terms=terms,
        _sources=tuple(sources),
        _origin=np.array(columns["origin"], np.int64),
    )


def _check_classes(dataset: datasets.Dataset) -> None:
    met = np.unique(dataset.train.labels)
    if len(met) < 2:
        names = ", ".join(dataset.class_names[k] for k in met) or "no class"
        raise DataError(
            f"{dataset.name} has nothing to tell apart: all its training images are of {names}; "
            "divide the images so that every training split has two classes at least."
        )


def _single_classes(dataset: datasets.Dataset) -> list[str]:
    """A sentence for each held-out split that has no AUROC."""
    return [
        f"all images of the {name} split are of one class, so it has no AUROC of its own; in a "
        "pooled AUROC they count"
        for name in ("val", "test")
        if len(np.unique(getattr(dataset, name).labels)) < 2
    ]
