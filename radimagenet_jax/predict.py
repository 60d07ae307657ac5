"""Scores or features of a folder of images: `python -m radimagenet_jax.predict`."""

import glob
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radimagenet_jax import command, console
from radimagenet_jax.errors import ConfigError, DataError
from radimagenet_jax.files import check_output, expanded

_EPILOG = """\
examples:
  python -m radimagenet_jax.predict --workdir=runs/covid --inputs=slices/ --output=scores/
      scores of a finished run's best epoch: scores/predictions.csv
  python -m radimagenet_jax.predict --weights=RadImageNet-ResNet50_notop.h5 --inputs='ct/*.png' \\
      --output=features/ --features
      features/features.npz with keys (N,), pooled (N, C) and their digest, sha256
  python -m radimagenet_jax.predict --weights=runs/covid/weights --inputs=slices/ --output=scores/
      scores of a weight file or folder whose contract names the classes of its head

Images are PNG, JPEG, BMP or TIFF; a folder is searched with its subfolders. They get the very
preprocessing that the weights were trained with.
"""
_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}
_BATCH_SIZE = 16
_IMAGE_SIZE = 224


@dataclass(frozen=True)
class _Source:
    """A network to apply: images (B, S, S, 1 or 3) uint8 to {'scores', 'pooled'}."""

    apply: Callable[[Any], dict[str, Any]]
    image_size: int
    class_names: tuple[str, ...] | None


def main(arguments: Sequence[str]) -> int:
    """Parses the command line and predicts; returns the exit code."""
    parser = command.Parser(
        "predict",
        "Score images with a trained run, or take a weight file's features of them.",
        _EPILOG,
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--workdir", metavar="RUN", help="working directory of a finished run")
    source.add_argument(
        "--weights",
        metavar="FILE",
        help="a weight file or a converted folder; without classes of its own, for --features",
    )
    parser.add_argument(
        "--preprocessing",
        metavar="NAME",
        help="with --weights, the input that they expect where the file does not tell: "
        "caffe_div255, caffe, torch or tf",
    )
    parser.add_argument("--inputs", required=True, metavar="DIR_OR_GLOB", help="the images")
    parser.add_argument("--output", required=True, metavar="DIR", help="where the result goes")
    parser.add_argument(
        "--features", action="store_true", help="write pooled features instead of scores"
    )
    parser.add_argument(
        "--image_size",
        type=int,
        metavar="PIXELS",
        help=f"side of the square input; the run's own, or {_IMAGE_SIZE} with --weights",
    )
    options = parser.parse_args(arguments)
    if options.workdir and options.preprocessing:
        raise ConfigError(
            f"--preprocessing is for --weights; {options.workdir} has its own: leave it out."
        )
    given = expanded(options.workdir or options.weights)
    output = expanded(options.output)
    check_output(output, "--output")
    paths = find_images(options.inputs)

    from radimagenet_jax.models import ops

    ops.keep_compiled_programs()
    if options.workdir:
        network = _of_run(given, options.image_size)
    else:
        network = _of_weights(given, options.image_size, options.preprocessing)
    if network.class_names is None and not options.features:
        raise _no_classes(given)
    results = _apply(network, paths)

    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--output={output} cannot be made ({error.strerror}); give another folder."
        ) from error
    if options.features:
        written = _write_features(output, list(paths), results["pooled"])
    else:
        assert network.class_names is not None  # or it was refused above
        written = _write_scores(output, list(paths), results["scores"], network.class_names)
    console.console.print(f"{len(paths)} images: {written}")
    return 0


def find_images(inputs: str) -> dict[str, Path]:
    """Finds the images of a folder or a glob.

    Args:
      inputs: A folder, searched with its subfolders for the known suffixes; a file; or a glob
        pattern, all of whose files are taken.

    Returns:
      Path by key, sorted by key: the path relative to the folder, or below the pattern's first
      wildcard.

    Raises:
      DataError: If there is none.
    """
    folder = expanded(inputs)
    if folder.is_dir():
        found = [p for p in folder.rglob("*") if p.suffix.lower() in _SUFFIXES and p.is_file()]
        root = folder
    elif folder.is_file():
        found, root = [folder], folder.parent
    else:
        # Folders that are there are meant as they are, whatever wildcards are in their names.
        root = next(parent for parent in folder.parents if parent.is_dir())
        pattern = str(folder.relative_to(root))
        matches = glob.glob(pattern, root_dir=root, recursive=True)
        found = [root / match for match in matches if (root / match).is_file()]
    if not found:
        raise DataError(
            f"--inputs={inputs}: no image there; give a folder with "
            f"{', '.join(sorted(_SUFFIXES))} files, or a quoted pattern such as 'ct/*.png'."
        )
    keys = {path.relative_to(root).as_posix(): path for path in found}
    return dict(sorted(keys.items()))


def make_scores(
    model: Any, variables: Any, scheme: str, channel_order: str
) -> Callable[[Any], dict[str, Any]]:
    """Makes the compiled function from images to scores.

    Args:
      model: A network with a head.
      variables: {'params', 'batch_stats'}.
      scheme: Preprocessing, a key of `preprocess.SCHEMES`.
      channel_order: See `preprocess.normalize`.

    Returns:
      (B, S, S, 1 or 3) uint8 -> {'scores': (B, classes), 'pooled': (B, C)}, float32.
    """
    import jax

    from radimagenet_jax.models import ops, preprocess

    @ops.jit
    def apply(variables: Any, images: jax.Array) -> dict[str, jax.Array]:
        logits, out = model.apply(variables, preprocess.normalize(images, scheme, channel_order))
        return {"scores": jax.nn.softmax(logits), "pooled": out["pooled"]}

    # As an argument, the weights are no constant of the compiled program.
    return lambda images: apply(variables, images)


def _no_classes(given: Path) -> ConfigError:
    return ConfigError(
        f"{given} has no classes to score, or does not state their names; add --features, or give "
        "a run with --workdir, or weights that state them, as `convert --labels=...` writes them."
    )


def _checked_size(size: int, model: str) -> int:
    """The side of the input, if the network can take it."""
    from radimagenet_jax import models
    from radimagenet_jax.training import fields

    entry = models.architecture(model)
    if size < entry.min_image_size:
        raise ConfigError(
            f"--image_size={size}: {entry.title} takes {entry.min_image_size} pixels at least."
        )
    problem = fields.FIELDS["image_size"].problem("image_size", size)
    if problem:
        raise ConfigError(f"{problem.replace('config.', '--', 1)}.")
    return size


def _of_run(folder: Path, image_size: int | None) -> _Source:
    from radimagenet_jax.weights import reading, run

    weights = reading.read(folder) if run.is_run(folder) else None
    if weights is None or weights.config is None:
        raise ConfigError(f"{folder} holds no run: it has no config.json; give a run's --workdir.")
    contract = weights.contract
    # As it was validated, in the precision that it was trained in.
    model = weights.network(dtype=weights.config["dtype"])
    apply = make_scores(model, weights.variables, contract.preprocessing, contract.channel_order)
    size = weights.config["image_size"] if image_size is None else image_size
    return _Source(apply, _checked_size(size, contract.architecture), contract.labels)


def _of_weights(path: Path, image_size: int | None, preprocessing: str | None) -> _Source:
    from radimagenet_jax.pretrained import load_pretrained

    pretrained = load_pretrained(path, preprocessing=preprocessing)
    for line in pretrained.report.lines():
        console.console.print(line, markup=False)

    contract = pretrained.contract
    asked = _IMAGE_SIZE if image_size is None else image_size
    size = _checked_size(asked, contract.architecture)
    if contract.labels is not None:
        scheme, order = contract.preprocessing, contract.channel_order
        apply = make_scores(pretrained.model, pretrained.variables, scheme, order)
        return _Source(apply, size, contract.labels)

    def features(images: Any) -> dict[str, Any]:
        return {"pooled": pretrained.features(pretrained.preprocess(images))["pooled"]}

    return _Source(features, size, None)


def _apply(network: _Source, paths: dict[str, Path]) -> dict[str, Any]:
    """Applies a network to all images, batch by batch, with a progress bar."""
    import numpy as np
    from rich.progress import Progress

    parts: dict[str, list[Any]] = {}
    with Progress(console=console.console, transient=True) as progress:
        task = progress.add_task("images", total=len(paths))
        for batch in _batches(list(paths.values()), network.image_size):
            # The last batch is padded, so that the network is compiled once only.
            padding = ((0, _BATCH_SIZE - len(batch)), (0, 0), (0, 0), (0, 0))
            out = network.apply(np.pad(batch, padding) if len(paths) > _BATCH_SIZE else batch)
            for name, values in out.items():
                parts.setdefault(name, []).append(np.asarray(values)[: len(batch)])
            progress.advance(task, len(batch))
    return {name: np.concatenate(values) for name, values in parts.items()}


def _batches(paths: Sequence[Path], size: int) -> Iterator[Any]:
    """Batches (B, S, S, 3) uint8, the next one decoded while one is being computed."""
    import numpy as np

    from radimagenet_jax.data import images

    def load(path: Path) -> Any:
        try:
            encoded = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}.") from error
        images.check_image(encoded, name=str(path))
        image = images.resize_nearest(images.decode(encoded, name=str(path)), size)
        return np.broadcast_to(image, (size, size, 3))

    with ThreadPoolExecutor() as pool:
        groups = [paths[i : i + _BATCH_SIZE] for i in range(0, len(paths), _BATCH_SIZE)]
        waiting = [pool.submit(load, path) for path in groups[0]]
        for group in [*groups[1:], []]:
            ready, waiting = waiting, [pool.submit(load, path) for path in group]
            yield np.stack([image.result() for image in ready])


def _write_scores(
    output: Path, keys: Sequence[str], scores: Any, class_names: Sequence[str]
) -> Path:
    from radimagenet_jax.reports import predictions

    path = output / "predictions.csv"
    called = (class_names[best] for best in scores.argmax(-1).tolist())
    texts = zip(keys, called, strict=True)
    predictions.write_table(path, ("key", "prediction"), texts, class_names, scores)
    return path


def _write_features(output: Path, keys: Sequence[str], pooled: Any) -> Path:
    from radimagenet_jax.data import features_file

    path = output / "features.npz"
    features_file.write(path, keys, pooled)
    return path


def read_features(path: Path | str) -> tuple[tuple[str, ...], Any]:
    """Reads a features.npz that this command wrote; see `data.features_file.read`."""
    from radimagenet_jax.data import features_file

    return features_file.read(path)


if __name__ == "__main__":
    command.run(main)
