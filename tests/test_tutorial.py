"""The tutorial in the package's README runs from its first block to its last, as it stands."""

import csv
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np

import radimagenet_jax as rin
from radimagenet_jax.reports import study_files
from tests.dicom_files import dicom_file

README = Path(rin.__file__).with_name("README.md")
BLOCK = re.compile(r"```(python)?\n(.*?)```", re.DOTALL)


def prepare(folder: Path) -> None:
    """What a reader has beforehand: weights, a DICOM file, and a study."""
    rin.create_model("resnet50").save(folder / "RadImageNet-ResNet50_notop.h5")
    pixels = np.arange(96 * 80, dtype=np.uint16).reshape(96, 80)
    (folder / "slice.dcm").write_bytes(dicom_file(pixels, "p"))
    table = folder / "studies/breast" / study_files.TABLE
    table.parent.mkdir(parents=True)
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, study_files.COLUMNS, restval="")
        writer.writeheader()
        for auroc, status in (("0.8", "ok"), ("0.9", "ok"), ("", "failed")):
            row = {"init": "scratch", "structure": "freezeall", "auroc_test": auroc}
            writer.writerow({**row, "status": status})


def test_every_block_of_the_tutorial_runs_one_after_the_other(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    prepare(tmp_path)
    tutorial = README.read_text().partition("## As a structure")[0]
    found, names = BLOCK.findall(tutorial), {"__name__": "tutorial"}
    assert len(found) == 10
    for language, block in found:
        if language:
            exec(compile(block, str(README), "exec"), names)
            continue
        module, *flags = shlex.split(block.removeprefix("python -m "))
        assert importlib.import_module(module).main(flags) == 0
    printed = capsys.readouterr().out
    # What is in the pictures is found, by random weights too.
    assert float(re.search(r"AUROC ([\d.]+), 95 %", printed)[1]) > 0.9
    assert "scratch      freezeall      2 runs, mean AUROC 0.850" in printed
    assert "slice.dcm" in printed
    kept = dict(zip(names["kept"]["keys"].tolist(), names["kept"]["pooled"], strict=True))
    ordered = np.stack([kept[name] for name, _, _ in names["rows"]])
    np.testing.assert_allclose(ordered, names["features"], atol=1e-5)
    assert names["maps"].shape == (40, 64, 64)
    for name in ("runs/mine/report.html", "mine/model.safetensors", "maps.png"):
        assert (tmp_path / name).stat().st_size > 0, name
    assert json.loads((tmp_path / "runs/mine/result.json").read_text())["test"]["n"] > 0


def test_what_shows_the_reference_finds_every_name():
    # pdoc is an extra; it looks at what a module holds, and asks for nothing.
    code = (
        "import sys; sys.modules['pdoc'] = None; import radimagenet_jax as rin; "
        "assert set(rin.__all__) <= set(vars(rin)), vars(rin)"
    )
    environment = {**os.environ, "PYTHONPATH": str(README.parents[1])}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=120)
