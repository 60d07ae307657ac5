"""The networks can be used in somebody else's project: they lean on jax and flax alone."""

import subprocess
import sys

from tests.conftest import PROJECT

PROGRAM = """
import importlib.abc, sys

class Refused(importlib.abc.MetaPathFinder):
    # What jax and flax bring along, and nothing else, may be imported.
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in REFUSED:
            raise ImportError(name)

REFUSED = {"h5py", "safetensors", "orbax.checkpoint", "tensorflow_datasets", "grain", "cv2", "PIL",
           "pydicom", "matplotlib", "jinja2", "ml_collections", "scipy.stats", "tensorboardX"}
sys.meta_path.insert(0, Refused())
from radimagenet_jax.models import ResNet50
print(*[name for name in sys.modules if name.startswith("radimagenet_jax.")])
"""


def test_a_network_needs_no_package_but_jax_and_flax_and_no_other_part_of_ours():
    command = [sys.executable, "-c", PROGRAM]
    ran = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    ours = {name.split(".")[1] for name in ran.stdout.split()}
    assert ours == {"models", "version"}
