"""A command starts over once to get huge pages, keeps other settings, and leaves a choice alone."""

import os
import subprocess
import sys

import pytest

from radimagenet_jax import huge_pages
from tests.conftest import PROJECT

SHOWN = (
    "import os, sys; from radimagenet_jax import command; "
    "command.run(lambda arguments: print(os.environ.get('GLIBC_TUNABLES', ''), *arguments))"
)


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """A kernel that gives huge pages to those who ask."""
    file = tmp_path / "enabled"
    file.write_text("always [madvise] never\n")
    monkeypatch.setattr(huge_pages, "_KERNEL", file)
    monkeypatch.setattr(huge_pages.platform, "libc_ver", lambda: ("glibc", "2.36"))
    return file


def test_it_is_asked_for_once_and_beside_what_is_set(kernel):
    environment = {"GLIBC_TUNABLES": "glibc.malloc.arena_max=2"}
    assert huge_pages.ask_for(environment)
    assert environment["GLIBC_TUNABLES"] == "glibc.malloc.arena_max=2:glibc.malloc.hugetlb=1"
    assert not huge_pages.ask_for(environment)


@pytest.mark.parametrize("state", ["[always] madvise never", "always madvise [never]"])
def test_a_kernel_that_decides_by_itself_is_not_asked(kernel, state):
    kernel.write_text(state)
    assert not huge_pages.ask_for({})


def test_a_machine_without_such_a_kernel_or_c_library_is_not_asked(kernel, monkeypatch):
    assert not huge_pages.ask_for({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"})
    monkeypatch.setattr(huge_pages.platform, "libc_ver", lambda: ("", ""))
    assert not huge_pages.ask_for({})
    kernel.unlink()
    monkeypatch.undo()
    assert huge_pages.ask_for({}) in (True, False)


def test_a_command_keeps_its_arguments_when_it_starts_over():
    environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    done = subprocess.run(
        [sys.executable, "-c", SHOWN, "--a=b c", ""],
        env=environment,
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    expected = "glibc.malloc.hugetlb=1" if huge_pages.ask_for({}) else ""
    assert done.stdout == f"{expected} --a=b c \n"
