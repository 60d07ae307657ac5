"""A disk that fills up in any phase of a run: one sentence, and with room the run goes on."""

import json
import os
import subprocess

import pytest

MIB = 2**20
ROOM = 64 * MIB


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, start, page):
    """A run with all the room that it wants; it tells its digest, and the bytes it takes."""
    workdir = tmp_path_factory.mktemp("room") / "run"
    process = start("main", f"--config={page}", f"--workdir={workdir}", "--config.epochs=2")
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 0, said
    taken = sum(path.stat().st_size for path in workdir.rglob("*") if path.is_file())
    return json.loads((workdir / "result.json").read_text())["params_digest"], taken


@pytest.fixture
def disk(tmp_path):
    """A file system of its own; call it with the bytes that it shall hold."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def hold(size):
        how = "remount,size" if os.path.ismount(folder) else "size"
        command = ["mount", "-t", "tmpfs", "-o", f"{how}={size}", "tmpfs", str(folder)]
        mounted = subprocess.run(command, capture_output=True, text=True)
        if mounted.returncode:
            pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
        return folder

    yield hold
    if os.path.ismount(folder):
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
@pytest.mark.parametrize("share", [0.002, 0.05, 0.2, 0.4, 0.6, 0.8, 0.9, 0.97])
def test_a_full_disk_ends_a_run_in_a_sentence_and_with_room_it_goes_on(
    disk, undisturbed, start, page, share
):
    digest, taken = undisturbed
    workdir = disk(int(share * taken)) / "run"
    command = ("main", f"--config={page}", f"--workdir={workdir}", "--config.epochs=2")
    process = start(*command)
    said = process.communicate(timeout=300)[1]
    assert "Traceback" not in said, said
    if process.returncode:
        assert process.returncode == 1, said
        assert said.count("error: ") == 1, said
        assert "cannot " in said
    disk(ROOM)
    process = start(*command)
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 0, said
    assert json.loads((workdir / "result.json").read_text())["params_digest"] == digest
    assert not list(workdir.rglob("*tmp*"))
