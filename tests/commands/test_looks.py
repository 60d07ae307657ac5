"""A look at a run that is training, by whichever command, never harms it."""

import json
import time

import pytest

LOOKS = {
    "predict": lambda run, pictures, out: (
        *("predict", f"--workdir={run}", f"--inputs={pictures}", f"--output={out}"),
    ),
    "convert": lambda run, pictures, out: ("convert", f"--weights={run}", f"--output={out}"),
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two small images."""
    import numpy as np
    from PIL import Image

    folder = tmp_path_factory.mktemp("pictures")
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 40), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize("count", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_looks_end_in_a_result_or_a_sentence_and_the_training_with_0(
    tmp_path, start, page, pictures, count
):
    run = tmp_path / "run"
    epochs = 2 + 3 * count  # longer than the looks
    training = start(
        *("main", f"--config={page}", f"--workdir={run}", f"--config.epochs={epochs}"),
        "--config.checkpoint_every=1",
    )
    deadline = time.monotonic() + 120
    while not list(run.glob("checkpoints/[0-9]*")) and time.monotonic() < deadline:
        assert training.poll() is None, training.communicate()[1]
        time.sleep(0.05)
    seen = 0
    for number in range(count):
        if training.poll() is not None:
            break
        name = sorted(LOOKS)[number % len(LOOKS)]
        look = start(*LOOKS[name](run, pictures, tmp_path / f"out{number}"))
        said = look.communicate(timeout=120)[1]
        seen += training.poll() is None
        assert "Traceback" not in said
        assert look.returncode == 0 or said.count("error: ") == 1, said
    said = training.communicate(timeout=600)[1]
    assert training.returncode == 0, said
    assert seen
    assert json.loads((run / "result.json").read_text())["train"]["epochs"] == epochs
