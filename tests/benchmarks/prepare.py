"""How fast a large data set is prepared, and that its memory does not grow.

    python -m tests.benchmarks.prepare [--files=200000] [--folder=DIR]

RadImageNet's layout with images of 224 x 224 pixels is generated (2,000 pictures, each linked under
many names) and prepared, first with 20,000 files and then with all, each in a process of its own.
The last line of the output is one JSON object. The exit code is 1 below 400 images/s, above 1 GB,
or if the larger set takes more than 1.2 times the memory of the smaller.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from tests.radimagenet_source import SHARES, place, png, write_table
from tfds_builders.radimagenet.radimagenet_dataset_builder import class_names

BASE = 20_000
PICTURES = 2_000
SIDE = 224
LEAST_RATE, MOST_GROWTH, MOST_MEMORY = 400, 1.2, 1024  # images/s, ratio, MiB


def main() -> int:
    """Measures both sizes and compares."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.prepare")
    parser.add_argument("--files", type=int, default=200_000, help="the larger number of files")
    parser.add_argument("--folder", help="where to work, a temporary folder by default")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(Path(options.measure))))
        return 0
    rows = []
    for files in (BASE, options.files):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            generate(Path(folder), files)
            done = subprocess.run(
                [sys.executable, "-m", "tests.benchmarks.prepare", f"--measure={folder}"],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], file=sys.stderr)
    growth = rows[1]["peak_mib"] / rows[0]["peak_mib"]
    rate = min(row["images_per_second"] for row in rows)
    peak = rows[1]["peak_mib"]
    summary = {"images_per_second": rate, "memory_ratio": growth, "cpus": os.cpu_count()}
    print(json.dumps({**summary, "runs": rows}))
    return int(rate < LEAST_RATE or growth > MOST_GROWTH or peak > MOST_MEMORY)


def generate(data_dir: Path, files: int, distinct: int = PICTURES) -> None:
    """Writes the source, of so many distinct pictures; hard links keep it small on disk."""
    root = data_dir / "downloads/manual/radimagenet"
    pictures = data_dir / "pictures"
    pictures.mkdir()
    rng = np.random.default_rng(0)
    for number in range(distinct):
        (pictures / f"{number}.png").write_bytes(png(slice_like(rng)))
    tables: dict[str, list[tuple[str, str]]] = {split: [] for split in SHARES}
    names = class_names()
    for number in range(files):
        folder, label = place(names[number % len(names)])
        path = f"{folder}/{number:07d}.png"
        if number < len(names):
            (root / folder).mkdir(parents=True, exist_ok=True)
        (root / path).hardlink_to(pictures / f"{number % distinct}.png")
        turn = number // len(names) % 27  # 24, 1 and 2 of 27 are about the released shares
        tables["train" if turn > 2 else ("val", "test", "test")[turn]].append((path, label))
    for split, rows in tables.items():
        write_table(root, split, rows)


def slice_like(rng: np.random.Generator) -> np.ndarray:
    """A smooth body before a dark background, with some noise: (SIDE, SIDE) uint8."""
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    body = (x / rng.uniform(0.6, 0.9)) ** 2 + (y / rng.uniform(0.5, 0.8)) ** 2 < 1
    organs = cv2.GaussianBlur(rng.normal(0, 1, (SIDE, SIDE)), (0, 0), 9)
    tissue = 110 + 500 * organs + rng.normal(0, 5, (SIDE, SIDE))
    return np.where(body, np.clip(tissue, 0, 255), 0).astype(np.uint8)


def measure(data_dir: Path) -> dict[str, float]:
    """Prepares the set in this process."""
    from radimagenet_jax.data.preparation import prepare

    began = time.perf_counter()
    built = prepare("radimagenet", data_dir)
    seconds = time.perf_counter() - began
    files = sum(split.num_examples for split in built.info.splits.values())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    shutil.rmtree(built.data_dir)
    return {
        "files": files,
        "images_per_second": round(files / seconds, 1),
        "peak_mib": round(peak, 1),
    }


if __name__ == "__main__":
    sys.exit(main())
