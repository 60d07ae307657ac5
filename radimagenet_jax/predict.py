"""Scores or features of a folder of images: `python -m radimagenet_jax.predict`."""

import csv
import glob
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radimagenet_jax import command, console
from radimagenet_jax.errors import ConfigError, DataError, UserError

_EPILOG = """\
examples:
  python -m radimagenet_jax.predict --workdir=runs/covid --inputs=slices/ --output=scores/
      scores of a finished run's best epoch: scores/predictions.csv
  python -m radimagenet_jax.predict --weights=RadImageNet-ResNet50_notop.h5 --inputs='ct/*.png' \\
      --output=features/ --features
      features/features.npz with keys (N,) and pooled (N, C)

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
    source.add_argument("--weights", metavar="FILE", help="a weight file or a converted folder")
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
    if options.weights and not options.features:
        raise ConfigError(
            f"{options.weights} has no classes to score; add --features, or give a trained run "
            "with --workdir."
        )
    if options.workdir and options.preprocessing:
        raise ConfigError(
            f"--preprocessing is for --weights; {options.workdir} has its own: leave it out."
        )
    paths = find_images(options.inputs)

    from radimagenet_jax.models import ops

    ops.keep_compiled_programs()
    if options.workdir:
        network = _of_run(Path(options.workdir), options.image_size)
    else:
        size = options.image_size or _IMAGE_SIZE
        network = _of_weights(options.weights, size, options.preprocessing)
    results = _apply(network, paths)

    output = Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    if options.features:
        written = _write_features(output, list(paths), results["pooled"])
    else:
        assert network.class_names is not None
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
    folder = Path(inputs)
    if folder.is_dir():
        found = [p for p in folder.rglob("*") if p.suffix.lower() in _SUFFIXES and p.is_file()]
        root = folder
    else:
        found = [Path(p) for p in glob.glob(inputs, recursive=True) if Path(p).is_file()]
        fixed = inputs[: next((i for i, c in enumerate(inputs) if c in "*?["), len(inputs))]
        root = Path(fixed) if fixed.endswith("/") else Path(fixed).parent
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


def _of_run(folder: Path, image_size: int | None) -> _Source:
    from radimagenet_jax.weights import reading, run

    weights = reading.read(folder) if run.is_run(folder) else None
    if weights is None or weights.config is None:
        raise ConfigError(f"{folder} holds no run: it has no config.json; give a run's --workdir.")
    contract = weights.contract
    # As it was validated, in the precision that it was trained in.
    model = weights.network(dtype=weights.config["dtype"])
    apply = make_scores(model, weights.variables, contract.preprocessing, contract.channel_order)
    return _Source(apply, image_size or weights.config["image_size"], contract.labels)


def _of_weights(path: str, image_size: int, preprocessing: str | None) -> _Source:
    from radimagenet_jax.pretrained import load_pretrained

    pretrained = load_pretrained(path, preprocessing=preprocessing)
    for line in pretrained.report.lines():
        console.console.print(line, markup=False)

    def apply(images: Any) -> dict[str, Any]:
        return {"pooled": pretrained.features(pretrained.preprocess(images))["pooled"]}

    return _Source(apply, image_size, None)


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
    from radimagenet_jax.files import replacing

    path = output / "predictions.csv"
    with replacing(path, newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["key", "prediction", *(f"score_{name}" for name in class_names)])
        for key, row in zip(keys, scores.tolist(), strict=True):
            best = max(range(len(row)), key=row.__getitem__)
            writer.writerow([key, class_names[best], *map(repr, row)])
    return path


def _write_features(output: Path, keys: Sequence[str], pooled: Any) -> Path:
    import numpy as np

    path = output / "features.npz"
    temporary = output / ".features.tmp.npz"
    try:
        np.savez(temporary, keys=np.array(keys), pooled=pooled)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"{path} cannot be written: {error.strerror}.") from error
    return path


if __name__ == "__main__":
    command.run(main)
