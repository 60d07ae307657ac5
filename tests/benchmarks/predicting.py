"""Whether `predict` scores DICOM slices at the rate of the network.

    python -m tests.benchmarks.predicting --images=1000 --image_size=64

writes CT slices of 512 x 512 pixels into a temporary folder and scores them with a ResNet50 of
random weights. It prints one JSON object: slices a second of reading alone, of the network alone on
images in memory, and of the whole command without what comes before its first batch, and how far
the process's memory grew.
"""

import argparse
import json
import resource
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np

import radimagenet_jax as rin
from radimagenet_jax.data import inputs
from radimagenet_jax.prediction import flow, session
from radimagenet_jax.prediction.predictor import Predictor
from tests.dicom_files import dicom_file

CLASSES = ("no", "yes")


def write_slices(folder: Path, count: int) -> None:
    """CT slices: smooth, with noise, in Hounsfield units."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:512j, -1:1:512j]
    body = np.where(x**2 + y**2 < 0.7, 40.0, -1000.0)
    for number in range(count):
        pixels = (body + rng.normal(0, 20, (512, 512))).astype(np.int16)
        tags = {"RescaleSlope": 1, "RescaleIntercept": 0, "WindowCenter": 40, "WindowWidth": 400}
        (folder / f"{number:05}.dcm").write_bytes(dicom_file(pixels, "p", **tags))


def source(size: int) -> Predictor:
    """A ResNet50 of random weights with a head."""
    net = rin.create_model("resnet50", class_names=CLASSES)
    net = net.replace(variables=jax.device_put(net.variables))
    return Predictor("random", net.apply, size, net.contract, "", {})


def reading_rate(found: inputs.Found, size: int, threads: int) -> float:
    """Slices a second of reading alone."""
    with ThreadPoolExecutor(threads) as pool:
        began = time.perf_counter()
        for part in pool.map(lambda entry: inputs.read(entry, size), found.entries):
            assert all(isinstance(image, np.ndarray) for image in part.images.values())
        return len(found.entries) / (time.perf_counter() - began)


def network_rate(network: Predictor, batch: int, count: int) -> float:
    """Slices a second of the network alone, compiled before."""
    shape = (batch, network.image_size, network.image_size, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    np.asarray(network.apply(images)["scores"])
    began = time.perf_counter()
    rounds = max(1, count // batch)
    for _ in range(rounds):
        np.asarray(network.apply(images)["scores"])
    return rounds * batch / (time.perf_counter() - began)


def main() -> None:
    """Measures, and prints the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--image_size", type=int, default=64)
    options = parser.parse_args()
    network = source(options.image_size)
    batch = session.batch_size()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "in")
        folder.mkdir()
        write_slices(folder, options.images)
        found = inputs.find(str(folder))
        alone = network_rate(network, batch, options.images)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.perf_counter()
        assert session.Session(network, found, "").run(Path(place, "out")) == 0
        whole = options.images / (time.perf_counter() - began)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        result = {
            "device": jax.devices()[0].device_kind,
            "images": options.images,
            "image_size": options.image_size,
            "reading": round(reading_rate(found, options.image_size, flow.threads()), 1),
            "network": round(alone, 1),
            "whole": round(whole, 1),
            "memory_grew_mb": round(grown / 1024),
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
