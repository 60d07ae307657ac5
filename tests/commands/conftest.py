"""A prepared data directory and a config page that trains in seconds."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]

# A real page, but with a shallow network on small images: 8 steps an epoch.
_PAGE = '''
"""A run of seconds, for tests."""
from configs import base


def get_config(argument=None):
    config = base.get_config()
    config.dataset.name = "{dataset}"
    config.dataset.data_dir = "{data_dir}"
    config.model_options.stage_sizes = (1, 1, 1, 1)
    config.model_options.width = 8
    config.augment = "shift_zoom"
    config.image_size = 32
    config.batch_size = 128
    config.batch_norm_momentum = 0.8
    config.epochs = 3
    config.checkpoint_every = 2
    config.log_every = 1
    return config
'''


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with the phantoms prepared in it."""
    from radimagenet_jax.data.preparation import prepare

    folder = tmp_path_factory.mktemp("data")
    prepare("phantom", folder)
    return folder


@pytest.fixture(scope="session")
def page_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Path], Path]:
    """Writes the config page of a data set."""

    def write(dataset: str, data_dir: Path) -> Path:
        path = tmp_path_factory.mktemp("pages") / "page.py"
        path.write_text(_PAGE.format(dataset=dataset, data_dir=data_dir))
        return path

    return write


@pytest.fixture(scope="session")
def page(page_of: Callable[[str, Path], Path], data_dir: Path) -> Path:
    """The config page of the phantoms."""
    return page_of("phantom", data_dir)


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a user's shell, with a compilation cache that all tests share."""
    cache = tmp_path_factory.mktemp("xla")
    # Runs of a few steps: compiling with all of LLVM's passes would take longer than they do.
    return {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "COLUMNS": "120",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
    }


@pytest.fixture(scope="session")
def start(environment: dict[str, str]) -> Callable[..., subprocess.Popen[str]]:
    """Starts one of our commands as a user would; its output is piped."""

    def start(command: str, *arguments: object, **extra: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", f"radimagenet_jax.{command}", *map(str, arguments)],
            cwd=PROJECT,
            env={**environment, **extra},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start
