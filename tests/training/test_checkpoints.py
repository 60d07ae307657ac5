"""Laws of checkpoints: restored bit for bit, and never lost to a failed save."""

import os
import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from radimagenet_jax.errors import CheckpointError, UserError
from radimagenet_jax.models import KerasLayer
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
    saved.save(later, {"memory": {"best_loss": 0.1 + 0.2}}, None)
    saved.close()
    reopened = checkpoints.Checkpoints(tmp_path)
    assert reopened.latest_step() == 7
    restored, meta = reopened.restore(state)
    assert equal(restored, later)
    assert meta == {"memory": {"best_loss": 0.1 + 0.2}, "best_step": None}


def save_whole(saved, state):
    """Saves, and waits for the end of it."""
    saved.save(state, {}, None)
    saved.wait()


def at(state, step):
    """The state after so many steps, with other values everywhere."""
    moved = jax.tree.map(lambda leaf: leaf + step, state)
    return moved.replace(step=jnp.asarray(step, jnp.int32))


def test_the_two_newest_states_are_kept_and_the_best(tmp_path, state):
    saved = checkpoints.Checkpoints(tmp_path)
    for step, best in ((1, 1), (2, 2), (3, 2), (4, 2), (5, 2)):
        saved.save(at(state, step), {"contract": step}, best)
    saved.save(at(state, 5), {}, 2)  # again, as after a kill
    saved.close()
    assert {p.name for p in (tmp_path / "checkpoints").iterdir() if p.is_dir()} == {"2", "4", "5"}
    reopened = checkpoints.Checkpoints(tmp_path)
    best, meta = reopened.restore_best(state.weights())
    assert equal(best, at(state, 2).weights())
    assert meta["contract"] == 2
    assert equal(reopened.restore(state)[0], at(state, 5))


def test_a_state_may_be_donated_as_soon_as_save_returns(tmp_path, state):
    saved = checkpoints.Checkpoints(tmp_path)
    expected = jax.tree.map(np.array, state)
    saved.save(state, {}, None)
    overwrite = jax.jit(lambda s: jax.tree.map(lambda x: x * 0 + 7, s), donate_argnums=0)
    jax.block_until_ready(overwrite(state))
    saved.close()
    like = jax.device_put(expected, jax.devices()[0])
    assert equal(checkpoints.Checkpoints(tmp_path).restore(like)[0], expected)


def test_a_moving_average_is_what_is_evaluated_and_training_goes_on_from_both(tmp_path, state):
    average = freezing.select(state.opt_state[0].mu, jax.tree.map(lambda x: x - 1, state.params))
    with_average = state.replace(ema=average)
    saved = checkpoints.Checkpoints(tmp_path)
    saved.save(with_average, {}, 0)
    saved.close()
    reopened = checkpoints.Checkpoints(tmp_path)
    assert equal(reopened.restore(with_average)[0], with_average)
    best, _ = reopened.restore_best(state.weights())
    np.testing.assert_array_equal(
        best["params"]["head"]["kernel"], state.params["head"]["kernel"] - 1
    )
    np.testing.assert_array_equal(best["params"]["base"]["kernel"], state.params["base"]["kernel"])


def test_a_damaged_newest_checkpoint_falls_back_with_a_warning(tmp_path, state, capsys):
    saved = checkpoints.Checkpoints(tmp_path)
    for step in (1, 2):
        saved.save(at(state, step), {"memory": step}, 1)
    saved.close()
    for path in (tmp_path / "checkpoints" / "2").rglob("d/*"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    reopened = checkpoints.Checkpoints(tmp_path)
    restored, meta = reopened.restore(state)
    assert equal(restored, at(state, 1))
    assert meta["memory"] == 1
    assert "step 2" in (said := capsys.readouterr().err)
    assert "goes on from step 1" in said
    reopened.save(at(state, 2), {}, 2)  # the run comes to this step again
    reopened.close()
    assert equal(checkpoints.Checkpoints(tmp_path).restore(state)[0], at(state, 2))


DAMAGES = {
    "flipped": lambda content: bytes([content[0] ^ 4]) + content[1:],
    "flipped late": lambda content: content[:-1] + bytes([content[-1] ^ 64]),
    "halved": lambda content: content[: len(content) // 2],
    "emptied": lambda content: b"",
    "removed": None,
}


def test_every_file_of_a_checkpoint_damaged_in_any_way_falls_back(tmp_path, state, capsys):
    """The state is then bit for bit that of the step before, or of the newest if it is whole."""
    original = tmp_path / "original"
    saved = checkpoints.Checkpoints(original)
    for step in (1, 2):
        saved.save(at(state, step), {"memory": step}, 1)
    saved.close()
    newest = original / "checkpoints" / "2"
    files = [path.relative_to(newest) for path in newest.rglob("*") if path.is_file()]
    kinds = {name.name if "d" not in name.parts else "data": name for name in files}
    assert {"data", "metadata", "process_0", "_METADATA", "manifest.ocdbt", "digests.json"} <= set(
        kinds
    )
    for number, (name, how) in enumerate((name, how) for name in kinds.values() for how in DAMAGES):
        folder = tmp_path / str(number)
        shutil.copytree(original, folder)
        path = folder / "checkpoints" / "2" / name
        damaged = DAMAGES[how]
        if damaged is None:
            path.unlink()
        else:
            path.write_bytes(damaged(path.read_bytes()))
        reopened = checkpoints.Checkpoints(folder)
        restored, meta = reopened.restore(state)
        assert equal(restored, at(state, meta["memory"])), (name, how)
        # What lies beside the parts tells nothing of the state; all in them is compared.
        if len(name.parts) > 1:
            assert meta["memory"] == 1, (name, how)
            assert "is damaged and was set aside" in capsys.readouterr().err.replace("\n", " ")
            assert (folder / "checkpoints" / "damaged-2").is_dir()
        reopened.save(at(state, 2), {}, 2)  # the run comes to this step again
        reopened.close()
        shutil.rmtree(folder)


def test_what_fails_in_another_process_falls_back_here_too(tmp_path, state, monkeypatch):
    saved = checkpoints.Checkpoints(tmp_path)
    for step in (1, 2):
        saved.save(at(state, step), {}, 1)
    saved.close()
    calls = []

    def all_or_none(action):
        calls.append(action())
        if len(calls) == 2:  # the other one has read the files, and orbax fails with them
            raise UserError("process 1 of this run says why.")
        return calls[-1]

    monkeypatch.setattr(checkpoints.distributed, "all_or_none", all_or_none)
    assert equal(checkpoints.Checkpoints(tmp_path).restore(state)[0], at(state, 1))
    assert (tmp_path / "checkpoints" / "damaged-2").is_dir()


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), OSError(5, "I/O error")])
def test_a_disk_that_refuses_the_digests_leaves_the_checkpoint_before(
    tmp_path, state, monkeypatch, fault
):
    saved = checkpoints.Checkpoints(tmp_path)
    save_whole(saved, at(state, 1))

    def refused(folder):
        raise fault

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.own_files, "write_digests", refused)
        with pytest.raises(CheckpointError, match=f"{fault.strerror}.*step 1 is still there"):
            save_whole(saved, at(state, 2))
    assert os.listdir(tmp_path / "checkpoints") == ["1"]
    save_whole(saved, at(state, 2))
    saved.close()
    assert equal(checkpoints.Checkpoints(tmp_path).restore(state)[0], at(state, 2))


def test_the_last_checkpoint_is_refused_in_a_sentence_and_never_removed(tmp_path, state):
    saved = checkpoints.Checkpoints(tmp_path)
    for step in (1, 2):
        saved.save(at(state, step), {}, 1)
    saved.close()
    for path in (tmp_path / "checkpoints").glob("*/meta/metadata"):
        path.write_bytes(b"{}")
    with pytest.raises(CheckpointError, match=r"step 2 from .*meta/metadata is not what was writ"):
        checkpoints.Checkpoints(tmp_path).restore(state)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["1", "2"]


def test_a_checkpoint_of_an_earlier_version_has_no_digests_and_is_restored(tmp_path, state):
    saved = checkpoints.Checkpoints(tmp_path)
    saved.save(at(state, 1), {}, 1)
    saved.close()
    (tmp_path / "checkpoints" / "1" / "digests.json").unlink()
    assert equal(checkpoints.Checkpoints(tmp_path).restore(state)[0], at(state, 1))


def test_what_was_saved_beside_a_state_has_a_form(tmp_path, state):
    saved = checkpoints.Checkpoints(tmp_path)
    saved.save(at(state, 1), {"memory": {"n": 1}}, 1)
    saved.close()
    reopened = checkpoints.Checkpoints(tmp_path)
    assert reopened.restore(state, {"memory": {"n": int}})[1]["memory"] == {"n": 1}
    with pytest.raises(CheckpointError, match=r"'memory\.n' is not a text"):
        reopened.restore(state, {"memory": {"n": str}})


def test_a_damaged_best_network_is_told_at_the_start_and_not_at_the_end(tmp_path, state, capsys):
    saved = checkpoints.Checkpoints(tmp_path)
    for step in (1, 2, 3):
        saved.save(at(state, step), {}, 1)
    saved.close()
    (tmp_path / "checkpoints" / "1" / "network" / "_METADATA").unlink()
    reopened = checkpoints.Checkpoints(tmp_path)
    assert equal(reopened.restore(state)[0], at(state, 3))
    assert "the best network so far, that of step 1" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match="network/_METADATA is missing"):
        reopened.restore_best(state.weights())


def test_a_state_of_another_structure_is_refused(tmp_path, state):
    saved = checkpoints.Checkpoints(tmp_path)
    saved.save(state, {}, None)
    saved.wait()
    wider = state.replace(params={"base": {"kernel": jnp.zeros((3, 3))}})
    with pytest.raises(CheckpointError, match="another model"):
        saved.restore(wider)


def test_damaged_files_are_named(tmp_path, state):
    saved = checkpoints.Checkpoints(tmp_path)
    saved.save(state, {}, None)
    saved.close()
    data = [p for p in (tmp_path / "checkpoints").rglob("d/*") if p.is_file()]
    assert data
    for path in data:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        checkpoints.Checkpoints(tmp_path).restore(state)


# The reads of a failed save end after its loop is closed; see `command.run`.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
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
        saved.save(state, {"ok": True}, None)
        saved.wait()
        filler = disk / "filler"
        later = state.replace(step=state.step + 1)
        for left in (48_000, 12_000, 0):  # too little, found out before, while, and at once
            # Whole pages, since a tmpfs counts in them.
            free = (shutil.disk_usage(disk).free - left) // 4096 * 4096
            filler.write_bytes(bytes(free))
            with pytest.raises(CheckpointError, match="step 0 is still there"):
                save_whole(saved, later)
            filler.unlink()
        restored, meta = checkpoints.Checkpoints(disk).restore(state)
        assert equal(restored, state)
        assert meta["ok"] is True
        saved.save(later, {"ok": "again"}, None)
        saved.close()
        assert checkpoints.Checkpoints(disk).latest_step() == 1
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_write_that_fails_midway_leaves_the_checkpoint_before(tmp_path, state, monkeypatch):
    saved = checkpoints.Checkpoints(tmp_path)
    saved.save(state, {}, None)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.ocp.CheckpointManager, "save", full)
        with pytest.raises(CheckpointError, match=r"No space left.*step 0 is still there"):
            saved.save(state.replace(step=state.step + 1), {}, None)
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
