"""The same bits twice: what XLA is asked for, and that its choices of kernels are kept."""

import json
import os
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

from configs import base
from radimagenet_jax import models
from radimagenet_jax.training import determinism, network
from radimagenet_jax.training.program import Values
from radimagenet_jax.training.step import Examples
from radimagenet_jax.training.tally import Tally

IDS = np.arange(8, dtype=np.uint32)

FIRST = 'version: 3\nresults {\n  device: "chip"\n  hlo: "a"\n}\n'
MORE = FIRST + 'results {\n  device: "chip"\n  hlo: "b"\n}\n'


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """A machine on which JAX may find a GPU; returns the folder of its choices."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(determinism, "may_use_gpu", lambda environment: True)
    yield tmp_path / "cache" / "radimagenet_jax" / "autotuning"
    determinism.ask(False, tmp_path)


def asked(folder, said="", deterministic=True):
    """The flags of a process that runs in a folder, by name."""
    environment = {"XLA_FLAGS": said} if said else {}
    determinism.ask(deterministic, folder, environment)
    words = environment.get("XLA_FLAGS", "").split(" --")
    pairs = [word.removeprefix("--").partition("=") for word in words if word]
    return {name: value.strip('"') for name, _, value in pairs}


def test_a_run_asks_for_kernels_of_a_fixed_order_and_for_its_choices(gpu, tmp_path):
    flags = asked(tmp_path / "run")
    assert flags.pop("xla_gpu_exclude_nondeterministic_ops") == "true"
    written = flags.pop("xla_gpu_dump_autotune_results_to")
    assert written.startswith(str(gpu))
    assert written.endswith(".txt")  # by which XLA writes text
    assert flags == {}


def test_nothing_is_asked_of_a_machine_without_a_gpu_or_against_the_users_will(tmp_path, gpu):
    assert asked(tmp_path, deterministic=False) == {}
    assert determinism.may_use_gpu({}) is True
    assert asked(tmp_path, said="--xla_a=1", deterministic=False) == {"xla_a": "1"}


@pytest.mark.parametrize("platforms", ["cpu", "tpu", "tpu,cpu"])
def test_what_jax_is_told_to_use_decides(platforms):
    assert not determinism.may_use_gpu({"JAX_PLATFORMS": platforms})


def test_a_plugin_for_gpus_is_found_without_looking_at_devices(tmp_path):
    (tmp_path / "jax_plugins" / "xla_cuda99").mkdir(parents=True)
    (tmp_path / "jax_plugins" / "xla_cuda99" / "__init__.py").write_text("")
    code = (
        "from radimagenet_jax.training import determinism as d; import jax._src.xla_bridge as b; "
        "print(d.may_use_gpu({}), d.may_use_gpu({'JAX_PLATFORMS': 'cpu'}), bool(b._backends))"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.getcwd()}"}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert found.stdout.decode().split() == ["True", "False", "False"], found.stderr.decode()


def test_what_the_user_has_set_stays(gpu, tmp_path):
    own = "--xla_gpu_exclude_nondeterministic_ops=false --xla_dump_to=/x"
    flags = asked(tmp_path, said=own)
    assert flags["xla_gpu_exclude_nondeterministic_ops"] == "false"
    assert flags["xla_dump_to"] == "/x"
    assert "xla_gpu_dump_autotune_results_to" in flags
    own = "--xla_gpu_load_autotune_results_from=/mine.txt"
    flags = asked(tmp_path, said=own)
    assert flags["xla_gpu_load_autotune_results_from"] == "/mine.txt"
    assert "xla_gpu_dump_autotune_results_to" not in flags


def xla_writes(flags, text):
    with open(flags["xla_gpu_dump_autotune_results_to"], "w") as file:
        file.write(text)


def test_choices_are_kept_with_the_run_and_used_again(gpu, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    xla_writes(asked(run), FIRST)
    determinism.keep()
    assert (run / determinism.CHOICES).read_text() == FIRST
    again = asked(run)
    with open(again["xla_gpu_load_autotune_results_from"]) as file:
        assert file.read() == FIRST
    # A program that is new to the run adds to them.
    xla_writes(again, MORE)
    determinism.keep()
    assert (run / determinism.CHOICES).read_text() == MORE


def test_the_next_run_on_the_machine_begins_with_the_last_ones_choices(gpu, tmp_path):
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    first.mkdir()
    xla_writes(asked(first), FIRST)
    determinism.keep()
    flags = asked(second)
    with open(flags["xla_gpu_load_autotune_results_from"]) as file:
        assert file.read() == FIRST
    # And all its flags, by which JAX finds compiled programs, are those of a third.
    assert asked(third) == flags
    # A run that had others keeps its own.
    (first / determinism.CHOICES).write_text(MORE)
    with open(asked(first)["xla_gpu_load_autotune_results_from"]) as file:
        assert file.read() == MORE


@pytest.mark.parametrize("text", ["", "version: 3\nresults {\n  hlo: ", "\0\0", "something else\n"])
def test_damaged_choices_are_told_and_not_used(gpu, tmp_path, capsys, text):
    (tmp_path / determinism.CHOICES).write_text(text)
    assert "xla_gpu_load_autotune_results_from" not in asked(tmp_path)
    assert "is damaged and not used" in " ".join(capsys.readouterr().err.split())


def test_a_half_written_file_of_xla_replaces_nothing(gpu, tmp_path):
    xla_writes(asked(tmp_path), FIRST)
    determinism.keep()
    xla_writes(asked(tmp_path), MORE[:-5])
    determinism.keep()
    assert (tmp_path / determinism.CHOICES).read_text() == FIRST


def test_this_jaxlib_knows_the_flags(gpu, tmp_path):
    # A flag that it does not know ends the process. Also of folders with spaces in their names.
    os.environ["XDG_CACHE_HOME"] = str(tmp_path / "a cache")
    run = tmp_path / "run"
    run.mkdir()
    xla_writes(asked(run), FIRST)
    determinism.keep()
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    determinism.ask(True, run, environment)
    assert "load_autotune" in environment["XLA_FLAGS"]
    code = "import jax; print(int(jax.jit(lambda x: x + 1)(1)))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.stdout.decode().strip() == "2", done.stderr.decode()[-500:]


def test_a_run_notes_its_machines_and_says_when_it_has_moved(capsys):
    here = determinism.machine()
    assert here["chips"] == jax.device_count()
    assert here["chip"]
    tally = Tally()
    tally.on(here)
    assert capsys.readouterr().err == ""
    tally = Tally.from_json(json.loads(json.dumps({**tally.to_json(), "best_step": None})))
    tally.on(here)
    assert capsys.readouterr().err == ""
    tally.on({**here, "chip": "NVIDIA H100", "driver": "580.1"})
    said = " ".join(capsys.readouterr().err.split())
    assert f"chip {here['chip']}, now NVIDIA H100; driver None, now 580.1" in said
    assert [machine["chip"] for machine in tally.machines] == [here["chip"], "NVIDIA H100"]


@pytest.mark.parametrize("name", models.names())
def test_a_step_on_gpu_has_no_operation_that_adds_in_no_fixed_order(name):
    # https://openxla.org/xla/determinism: XLA refuses to compile select-and-scatter when it is
    # asked for a fixed order.
    config = base.get_config()
    config.model = name
    config.model_options.update(models.architecture(name).small)
    config.augment = "rotate_flip"
    size = config.image_size = models.architecture(name).min_image_size
    program = network.from_scratch(config, ("a", "b"))
    values = Values.of(config, np.zeros(8, int), 2)
    state = jax.eval_shape(lambda v: program.state(v, values), program.shapes)
    examples = Examples(np.zeros((8, size, size, 1), np.uint8), np.zeros(8, np.int32), IDS)
    step = jax.jit(program.train_step(values))
    traced = step.trace(state, examples, np.arange(8, dtype=np.int32), np.ones(8, np.float32))
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert "stablehlo.convolution" in text
    assert "select_and_scatter" not in text
    # What is left is the loss': of each example one number, to which nothing else is added.
    results = re.findall(r'"stablehlo\.scatter".*?-> tensor<([\dx]+)xf32>', text, re.DOTALL)
    assert set(results) <= {"8x1", "8x2"}
