"""Laws of what the figures may lean on."""

import subprocess
import sys
from pathlib import Path

import radimagenet_jax

PROGRAM = """
import importlib, pkgutil, sys
from radimagenet_jax import statistics

names = [module.name for module in pkgutil.iter_modules(statistics.__path__)]
for name in names:
    importlib.import_module("radimagenet_jax.statistics." + name)
print(*names)
print(*sys.modules)
"""
HEAVY = {"jax", "flax", "pandas", "matplotlib", "sklearn", "h5py", "ml_collections", "rich"}


def test_importing_all_of_statistics_loads_no_network_table_drawing_or_other_part_of_ours():
    root = Path(radimagenet_jax.__file__).parents[1]
    command = [sys.executable, "-c", PROGRAM]
    ran = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    names, loaded = (line.split() for line in ran.stdout.splitlines())
    assert {"metrics", "delong", "comparisons", "scores"} <= set(names)
    assert not {name.partition(".")[0] for name in loaded} & HEAVY
    ours = {name for name in loaded if name.startswith("radimagenet_jax.")}
    assert {name.split(".")[1] for name in ours} <= {"statistics", "errors", "version"}
