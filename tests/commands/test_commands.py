"""The commands as a whole: each is listed, explains itself within 80 columns, and is installed."""

import importlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from radimagenet_jax import command
from radimagenet_jax.__main__ import COMMANDS
from radimagenet_jax.errors import ConfigError

ROOT = Path(__file__).parents[2]


def run(*arguments):
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "80"},
        check=False,
    )


def test_the_package_lists_its_commands():
    shown = run("-m", "radimagenet_jax")
    assert shown.returncode == 0
    for name, (_, told) in COMMANDS.items():
        assert any(name in line and told in line for line in shown.stdout.splitlines())
    assert max(map(len, shown.stdout.splitlines())) <= 90
    unknown = run("-m", "radimagenet_jax", "trian")
    assert unknown.returncode == 2
    assert unknown.stderr.startswith("There is no command 'trian'.")


def test_a_command_is_run_by_its_name():
    shown = run("-m", "radimagenet_jax", "prepare", "--help")
    assert shown.returncode == 0
    assert "radimagenet_jax.prepare" in shown.stdout


def test_each_command_is_a_console_script():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {
        f"radimagenet-{name}": "radimagenet_jax.__main__:script" for name in COMMANDS
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_each_help_fits_80_columns(name, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    module = importlib.import_module(f"radimagenet_jax.{COMMANDS[name][0]}")
    with pytest.raises(SystemExit) as left:
        module.main(["--help"])
    assert left.value.code == 0
    shown = capsys.readouterr().out
    assert "examples:" in shown
    too_long = [line for line in shown.splitlines() if len(line) > 80]
    assert not too_long, too_long


def test_a_network_is_a_run_or_weights_of_which_alone_the_input_can_be_said():
    parser = command.Parser("export", "", "")
    parser.add_network("a weight file")

    def named(*arguments):
        return command.network_of(parser.parse_args(arguments))

    assert named("--workdir=runs/a") == Path("runs/a")
    assert named("--weights=~/a.h5", "--preprocessing=tf") == Path.home() / "a.h5"
    with pytest.raises(ConfigError, match="runs/a has its own: leave it out"):
        named("--workdir=runs/a", "--preprocessing=tf")


def test_a_command_line_is_told_as_it_was_given():
    arguments = ["--folder=my images", "--output=audit"]
    told = command.Parser("audit", "", "").line(arguments)
    assert told == ["python", "-m", "radimagenet_jax.audit", *arguments]
