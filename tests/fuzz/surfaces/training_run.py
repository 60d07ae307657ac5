"""A working directory in the states in which a training run, or a kill, leaves it."""

import atexit
import contextlib
import functools
import hashlib
import shutil
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from flax import traverse_util

from radimagenet_jax.errors import UserError
from radimagenet_jax.training import checkpoints, writers
from radimagenet_jax.training import state as states
from radimagenet_jax.training.tally import Tally
from radimagenet_jax.training.workdir import Workdir
from radimagenet_jax.weights import reading
from tests.fuzz import harness
from tests.fuzz.surfaces.own_files import CONTRACT, FORMS, STEPS, config
from tests.fuzz.surfaces.own_files import state as state_of

_PATIENCE = 10.0


@functools.cache
def _base() -> Path:
    """A run with two checkpoints, the first of which is the best."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-training"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    Workdir(folder, config()).close()
    saved = checkpoints.Checkpoints(folder)
    meta = {"memory": Tally(best_loss=0.5, best_step=STEPS[0]).to_json(), "data": "f" * 64}
    for step in STEPS:
        saved.save(state_of(step), {**meta, "contract": CONTRACT.to_json()}, STEPS[0])
    saved.close()
    log = writers.MetricWriter(folder, 0)
    for step in range(1, STEPS[-1] + 1):
        log.write(step, "train", loss=1 / step)
    log.close()
    return folder


def _make(rng: np.random.Generator, folder: Path) -> tuple[str, int]:
    """Takes a whole run back to an earlier moment; returns it and how many saves had ended."""
    target = folder / "run"
    shutil.copytree(_base(), target)
    whole = int(rng.integers(len(STEPS) + 1))
    for number, step in enumerate(STEPS[whole:]):
        place = target / "checkpoints" / str(step)
        if number or rng.random() < 0.2:
            shutil.rmtree(place)
        else:
            _tear(rng, place.rename(place.with_name(f"{step}.orbax-checkpoint-tmp")))
    if not whole and rng.random() < 0.3:
        shutil.rmtree(target / "checkpoints")
    log = target / writers.METRICS
    rows = log.read_bytes()
    log.write_bytes(rows[: int(rng.integers(len(rows) + 1))])
    if rng.random() < 0.1:
        log.unlink()
    if rng.random() < 0.3:  # what `files.replacing` writes before it renames
        (target / ".result.json.tmp").write_bytes(b'{"best_step": 3, "va')
    if not whole and rng.random() < 0.1:
        (target / "config.json").rename(target / ".config.json.tmp")
    return str(target), whole


def _tear(rng: np.random.Generator, place: Path) -> None:
    """Leaves what a save has written in some moment: files whole, in part, or not yet."""
    for path in sorted(place.rglob("*"), reverse=True):
        if path.is_dir():
            if not any(path.iterdir()) and rng.random() < 0.5:
                path.rmdir()
        elif (kind := rng.integers(3)) == 0:
            path.unlink()
        elif kind == 1:
            path.write_bytes(path.read_bytes()[: int(rng.integers(path.stat().st_size + 1))])


def _content(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _attempt(made: tuple[str, int]) -> tuple[dict[str, np.ndarray], states.TrainState | None]:
    """Looks at the run as `predict` and `convert` do, then goes on with it as `main` does."""
    folder, whole = Path(made[0]), made[1]
    before = _content(folder)
    seen: dict[str, np.ndarray] = {}
    try:
        weights = reading.read(folder)
        weights.network(dtype="float32")
        seen = traverse_util.flatten_dict(dict(weights.variables), sep="/")
    except UserError as error:
        if whole or not harness.is_clear(str(error)):
            raise AssertionError(f"a look is refused: {error}") from error
    if _content(folder) != before:
        raise AssertionError("a look has changed the run")
    state = None
    with contextlib.closing(Workdir(folder, config())):
        saved = checkpoints.Checkpoints(folder)
        if saved.latest_step() is not None:
            state, _ = saved.restore(state_of(STEPS[0]), FORMS)
        saved.close()
        log = writers.MetricWriter(folder, 0 if state is None else int(state.step))
        log.close()
        writers.read_metrics(folder)
    deadline = time.monotonic() + _PATIENCE
    while list(folder.glob("checkpoints/*tmp*")):  # orbax removes it in the background
        if time.monotonic() > deadline:
            raise AssertionError("what was half-written is still there")
        time.sleep(0.01)
    return seen, state


def _judge(
    made: tuple[str, int], result: tuple[dict[str, np.ndarray], states.TrainState | None]
) -> str | None:
    whole, (seen, state) = made[1], result
    if bool(seen) != bool(whole) or (state is not None) != bool(whole):
        return "a checkpoint is seen that is not whole, or a whole one is not"
    if not whole:
        return None
    best = traverse_util.flatten_dict(state_of(STEPS[0]).weights(), sep="/")
    if seen.keys() != best.keys() or not all(np.array_equal(seen[k], best[k]) for k in best):
        return "not the best network is seen"
    same = jax.tree.map(np.array_equal, state, state_of(STEPS[whole - 1]))
    return None if jax.tree.all(same) else "the run goes on from another state than the last"


def _warm() -> None:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "run"
        shutil.copytree(_base(), copy)
        _attempt((str(copy), len(STEPS)))


SURFACES = (
    harness.Surface(
        "training-run", _make, _attempt, _judge, outputs=frozenset({"run"}), warm=_warm
    ),
)
