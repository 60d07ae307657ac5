"""Laws of what a person sees of a running training."""

import io

import pytest
from rich.console import Console

from radimagenet_jax import progress as bars
from radimagenet_jax.training import progress


@pytest.fixture
def clock(monkeypatch):
    now = [50.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def console_on(monkeypatch, **options):
    out = io.StringIO()
    terminal = Console(file=out, highlight=False, soft_wrap=True, **options)
    for module in (progress, bars):
        monkeypatch.setattr(module, "console", terminal)
    return out


def train(clock, steps, seconds, first=0, total=None):
    total = total or steps
    with progress.TrainingProgress(first, total, steps_per_epoch=5) as shown:
        for step in range(first + 1, first + steps + 1):
            clock[0] += 600 if step == first + 1 else seconds  # the first compiles
            shown.step(step, 0.5, None if step == first + 1 else 12.34)


def test_a_pipe_gets_plain_lines_now_and_then(monkeypatch, clock):
    out = console_on(monkeypatch)
    train(clock, steps=20, seconds=10)
    lines = out.getvalue().splitlines()
    assert lines[0] == "epoch 1/4  step 1/20  loss 0.5000"
    assert lines[1] == "epoch 1/4  step 4/20  loss 0.5000  12.3 images/s  2 min 40 s left"
    assert lines[-1] == "epoch 4/4  step 20/20  loss 0.5000  12.3 images/s  0 s left"
    assert len(lines) == 8
    assert "\x1b" not in out.getvalue()


def test_a_resumed_run_paces_itself_by_its_own_steps(monkeypatch, clock):
    out = console_on(monkeypatch)
    train(clock, steps=4, seconds=10, first=10, total=20)
    assert (
        out.getvalue()
        .splitlines()[-1]
        .endswith("step 14/20  loss 0.5000  12.3 images/s  1 min 00 s left")
    )


def test_a_dumb_terminal_gets_plain_lines(monkeypatch, clock):
    out = console_on(monkeypatch, force_terminal=True, _environ={"TERM": "dumb"})
    train(clock, steps=10, seconds=10)
    assert "step 10/10" in out.getvalue()
    assert "\x1b" not in out.getvalue()


@pytest.mark.parametrize("width", [60, 80, 140])
def test_a_terminal_gets_figures_that_fit_its_width(monkeypatch, width):
    out = console_on(
        monkeypatch, force_terminal=True, width=width, _environ={"TERM": "xterm-256color"}
    )
    with progress.TrainingProgress(0, 1200, steps_per_epoch=40) as shown:
        shown.step(123, 0.4321, 3.2)
        text = "".join(
            segment.text for segment in progress.console.render(shown._bar.get_renderable())
        )
    assert "\x1b" in out.getvalue()
    assert max(len(line) for line in text.splitlines()) <= width
    for part in ("epoch 4/30", "123/1200", "loss 0.4321", "3.2 images/s", "left"):
        assert part in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (3720, "1 h 02 min")],
)
def test_durations_read_like_speech(seconds, text):
    assert progress.duration(seconds) == text
