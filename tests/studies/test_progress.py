"""Laws of what a person sees of a running study."""

import io

import pytest
from rich.console import Console

from radimagenet_jax import progress as bars
from radimagenet_jax.studies import plan, progress


@pytest.fixture
def clock(monkeypatch):
    now = [50.0]
    for module in (progress, bars):
        monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def shown_on(monkeypatch):
    def make(**options):
        out = io.StringIO()
        terminal = Console(file=out, highlight=False, soft_wrap=True, **options)
        terminal.say = terminal.print
        for module in (progress, bars):
            monkeypatch.setattr(module, "console", terminal)
        return out

    return make


@pytest.fixture
def groups(make_config):
    return plan.groups(make_config(settings=(("freezeall", 1e-2), ("unfreezeall", 1e-3))))


def drawn(shown):
    parts = bars.console.render(shown._bar.get_renderable())
    return "".join(part.text for part in parts)


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_shows_bar_count_rate_time_and_a_time_left_that_goes_down(
    shown_on, clock, groups, width
):
    shown_on(force_terminal=True, width=width, _environ={"TERM": "xterm-256color"})
    assert [len(group.runs) for group in groups] == [2, 1, 1]
    with progress.StudyProgress(groups, [None] * 3, epochs=10) as shown:
        shown.begin(groups[0])
        clock[0] += 100  # compiles
        shown.after_epoch(1)
        assert "left" not in drawn(shown)
        clock[0] += 20
        shown.after_epoch(2)
        # 8 epochs of 20 seconds, and two runs that take half of the 280 each.
        assert "about 7 min 20 s left" in drawn(shown)
        clock[0] += 15
        assert "about 7 min 05 s left" in drawn(shown)
        clock[0] += 145
        shown.end(groups[0], {"seconds": 280.0, "status": "done"})
        line = drawn(shown).rstrip("\n")
    assert len(line.rstrip()) <= width
    assert "\n" not in line
    for part in ("━", "2/4 runs", "25.7/h", "0:00:0", "about 4 min 40 s left"):
        assert part in line


def test_a_group_of_the_same_form_is_expected_to_take_as_long(shown_on, clock, groups):
    out = shown_on()
    with progress.StudyProgress(groups, [None, {"status": "done", "seconds": 7.0}, None], 3) as one:
        one.begin(groups[2])
        assert one.seconds_left() == pytest.approx(7 + 2 * 7)
        clock[0] += 60
        assert one.seconds_left() == pytest.approx(2 * 7)  # late, and no less than nothing
        one.end(groups[2], {"seconds": 60.0, "status": "done"})
        one.begin(groups[0])  # of no form that is known: by the mean of a run
        before = one.seconds_left()
        clock[0] += 5
        assert one.seconds_left() == pytest.approx(before - 5)
    assert "begins" in out.getvalue()
    assert "done in 1 min 00 s; 2/4 runs, about " in out.getvalue()
