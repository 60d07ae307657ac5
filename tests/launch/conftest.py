"""The machine that the launchers work on."""

from pathlib import Path

import pytest

from tests.launch.machine import Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)
