"""Products that break the promise, each in its way, for the test of the harness."""

import os
import tempfile


def make(rng, folder):
    return folder


def explode(folder):
    raise ValueError(folder)


def die(folder):
    os.abort()


def leave(folder):
    (folder / "half").write_text("x")


def leave_beside(folder):
    tempfile.mkdtemp()


def grow(folder):
    return (b"x" * 2**30).count(b"y")


def no_fault(made, result):
    return None


def find_fault(made, result):
    return "no"


def nothing():
    pass
