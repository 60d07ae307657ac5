"""The pages whose images are given out under agreements only train on files of their form."""

import json

import pytest

from tests.tfds_builders.test_cc_ccii import source as cc_ccii
from tests.tfds_builders.test_mrnet import source as mrnet
from tests.tfds_builders.test_rsna_hemorrhage import source as rsna_hemorrhage
from tests.tfds_builders.test_rsna_pneumonia import source as rsna_pneumonia

# Fixtures of the builders' own tests: pytest finds them by their names in this module.
SOURCES = (cc_ccii, mrnet, rsna_hemorrhage, rsna_pneumonia)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "dataset"),
    [
        ("acl", "mrnet"),
        ("meniscus", "mrnet"),
        ("pneumonia", "rsna_pneumonia"),
        ("sarscov2", "cc_ccii"),
        ("hemorrhage", "rsna_hemorrhage"),
    ],
)
def test_a_smoke_epoch_on_files_of_the_owners_form(start, tmp_path, request, page, dataset):
    source = request.getfixturevalue(dataset)
    manual = tmp_path / "data/downloads/manual"
    manual.mkdir(parents=True)
    (manual / dataset).symlink_to(source)
    workdir = tmp_path / "run"
    process = start(
        "main",
        f"--config=configs/{page}.py:smoke",
        f"--config.dataset.data_dir={tmp_path / 'data'}",
        f"--workdir={workdir}",
    )
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    result = json.loads((workdir / "result.json").read_text())
    assert result["test"]["n"] > 0
    assert 0 <= result["test"]["auroc"] <= 1
    # None of the published tables is there, so that a split by patient stands in.
    assert "deterministic" in (workdir / "report.html").read_text()
