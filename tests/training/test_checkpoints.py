"""Laws of checkpoints: restored bit for bit, and never lost to a failed save."""

import os
import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from radimagenet_jax.errors import CheckpointError
from radimagenet_jax.models.architecture import KerasLayer
from radimagenet_jax.training import checkpoints, freezing
from radimagenet_jax.training import state as states


@pytest.fixture
def state() -> states.TrainState:
    """A state with a frozen and a trainable layer, Adam's moments included."""
    rng = np.random.default_rng(0)
    variables = {
        "params": {
            "base": {"kernel": jnp.asarray(rng.normal(size=(64, 64)), jnp.float32)},
            "head": {"kernel": jnp.asarray(rng.normal(size=(64, 2)), jnp.float32)},
        },
        "batch_stats": {"bn": {"mean": jnp.asarray(rng.normal(size=64), jnp.float32)}},
    }
    freeze = freezing.specify("freezeall", variables, [KerasLayer("base", "base", "conv")])
    state = states.create(variables, optax.adam(1e-3), freeze)
    return jax.device_put(state, jax.devices()[0])


def equal(left, right) -> bool:
    same = jax.tree.map(lambda a, b: bool((np.asarray(a) == np.asarray(b)).all()), left, right)
    return jax.tree.all(same)


def test_a_state_and_its_memory_come_back_bit_for_bit(tmp_path, state):
    saved = checkpoints.Checkpoints(tmp_path)
    assert saved.latest_step() is None
    later = state.replace(step=state.step + 7)
    saved.save(later, {"memory": {"best_loss": 0.1 + 0.2}})
    saved.close()
    reopened = checkpoints.Checkpoints(tmp_path)
    assert reopened.latest_step() == 7
    restored, meta = reopened.restore(state)
    assert equal(restored, later)
    assert meta == {"memory": {"best_loss": 0.1 + 0.2}}


def test_the_two_newest_states_are_kept_and_the_one_best(tmp_path, state):
    saved = checkpoints.Checkpoints(tmp_path)
    for step in (1, 2, 3):
        moved = state.replace(step=jnp.asarray(step, jnp.int32))
        saved.save(moved, {})
        best = {"params": jax.tree.map(lambda x, s=step: x + s, state.params)}
        saved.save_best(step, best, {"step": step})
    saved.save_best(3, best, {"step": 3})  # again, as after a kill
    saved.close()
    folders = {p.name for p in (tmp_path / "checkpoints" / "latest").iterdir()}
    assert {"2", "3"} <= folders
    assert "1" not in folders
    restored, meta = checkpoints.Checkpoints(tmp_path).restore_best(best)
    assert meta == {"step": 3}
    assert equal(restored, best)


def test_a_state_of_another_structure_is_refused(tmp_path, state):
    saved = checkpoints.Checkpoints(tmp_path)
    saved.save(state, {})
    wider = state.replace(params={"base": {"kernel": jnp.zeros((3, 3))}})
    with pytest.raises(CheckpointError, match="another model"):
        saved.restore(wider)


def test_damaged_files_are_named(tmp_path, state):
    saved = checkpoints.Checkpoints(tmp_path)
    saved.save(state, {})
    saved.close()
    data = [p for p in (tmp_path / "checkpoints").rglob("d/*") if p.is_file()]
    assert data
    for path in data:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        checkpoints.Checkpoints(tmp_path).restore(state)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, state):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)],
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    try:
        saved = checkpoints.Checkpoints(disk)
        saved.save(state, {"ok": True})
        filler = disk / "filler"
        later = state.replace(step=state.step + 1)
        for left in (48_000, 12_000, 0):  # too little, found out before, while, and at once
            # Whole pages, since a tmpfs counts in them.
            free = (shutil.disk_usage(disk).free - left) // 4096 * 4096
            filler.write_bytes(bytes(free))
            with pytest.raises(CheckpointError, match="step 0 is still there"):
                saved.save(later, {})
            filler.unlink()
        restored, meta = checkpoints.Checkpoints(disk).restore(state)
        assert equal(restored, state)
        assert meta == {"ok": True}
        saved.save(later, {"ok": "again"})
        assert checkpoints.Checkpoints(disk).latest_step() == 1
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_write_that_fails_midway_leaves_the_checkpoint_before(tmp_path, state, monkeypatch):
    saved = checkpoints.Checkpoints(tmp_path)
    saved.save(state, {})

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.ocp.CheckpointManager, "save", full)
        with pytest.raises(CheckpointError, match=r"No space left.*step 0 is still there"):
            saved.save(state.replace(step=state.step + 1), {})
    assert equal(checkpoints.Checkpoints(tmp_path).restore(state)[0], state)


def test_the_digest_sees_every_bit_and_no_order():
    a = {"x": {"kernel": np.ones((2, 3), np.float32)}, "y": {"bias": np.zeros(3, np.float32)}}
    b = dict(reversed(a.items()))
    assert states.digest(a, {}) == states.digest(b, {})
    nudged = {**a, "y": {"bias": np.array([0, 0, 1e-45], np.float32)}}
    assert states.digest(nudged, {}) != states.digest(a, {})
    reshaped = {**a, "x": {"kernel": np.ones((3, 2), np.float32)}}
    assert states.digest(reshaped, {}) != states.digest(a, {})
    assert states.digest({}, a) != states.digest(a, {})
    assert isinstance(states.digest(a, {}), str)
