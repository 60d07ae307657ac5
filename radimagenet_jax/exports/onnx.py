"""ONNX: a file for ONNX Runtime and all that reads its format, converted by jax2onnx."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np

from radimagenet_jax.console import hushed
from radimagenet_jax.errors import ConfigError, ExportError, cut
from radimagenet_jax.exports import card, comparison
from radimagenet_jax.exports.keeping import kept_if_right
from radimagenet_jax.exports.source import IMAGES, Source
from radimagenet_jax.exports.spelling import spelled_out
from radimagenet_jax.weights.card import NOT_A_DEVICE

# The oldest that has what jax2onnx writes: ONNX Runtime reads it from 1.14 (2023) on.
_OPSET = 18


def write(path: Path, source: Source, images: np.ndarray) -> comparison.Agreement:
    """Writes an ONNX file, and keeps it if ONNX Runtime computes what the network does.

    Args:
      path: The file; it must not exist.
      source: The network.
      images: (N, S, S, 3) uint8, to compare on.

    Raises:
      ConfigError: If the extra `onnx` is not installed.
      ExportError: If the network cannot be converted, the file cannot be written, or it computes
        something else. Nothing is left behind.
    """
    onnx, _ = _library("onnx"), _library("onnxruntime")
    with kept_if_right(path) as temporary:
        model = _converted(source)
        # Older runtimes refuse a file by this number, which is that of the library by default.
        model.ir_version = onnx.helper.find_min_ir_version_for(list(model.opset_import))
        model.doc_string = NOT_A_DEVICE
        onnx.helper.set_model_props(model, card.as_texts(source))
        onnx.checker.check_model(model)
        onnx.save(model, temporary)
        return comparison.compare(_loaded(temporary), source, images)


def _converted(source: Source) -> Any:
    # Of those of its parts that nothing here uses.
    with hushed("jax2onnx"):
        jax2onnx = _library("jax2onnx")
        forward = spelled_out(source.forward())

        def outputs(images: jax.Array) -> tuple[jax.Array, ...]:
            found = forward(images)
            return tuple(found[name] for name in source.outputs)

        try:
            return jax2onnx.to_onnx(
                outputs,
                inputs=[jax.ShapeDtypeStruct(("N", *source.shape), np.uint8)],
                model_name=source.contract.architecture,
                opset=_OPSET,
                input_names=[IMAGES],
                output_names=list(source.outputs),
            )
        # It raises errors of many kinds on operations that it does not know.
        except Exception as error:
            raise ExportError(
                f"jax2onnx cannot convert this {source.contract.architecture} "
                f"({cut(str(error) or type(error).__name__)}); export it with --to=stablehlo, "
                "which takes any network."
            ) from error


def _loaded(path: Path) -> comparison.Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(None, {IMAGES: images}), strict=True))

    return run


def _library(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"--to=onnx needs the package {name}, which is not installed; "
            "run: pip install 'radimagenet-jax[onnx]'"
        ) from error
