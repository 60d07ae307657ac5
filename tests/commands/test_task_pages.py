"""Every published task has its page, with the published line, and trains on its real images."""

import json
from pathlib import Path

import pytest

from radimagenet_jax.data.registry import builder, with_fold
from radimagenet_jax.data.tasks import TASKS
from radimagenet_jax.training import config as config_pages
from radimagenet_jax.training import network

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_a_page_with_its_published_line(task, tmp_path):
    published = TASKS[task]
    config = config_pages.load(str(CONFIGS / f"{task}.py"))
    assert config.image_size == published.image_size
    assert config.optimizer.name == "adam"
    assert config.optimizer.learning_rate == published.learning_rate
    assert config.epochs == 30
    assert config.dropout == 0.5
    # COVID-CT has 425 images to train on, fewer than a published batch.
    assert config.batch_size == (16 if task == "covid" else published.batch_size)
    policy = network.from_scratch(config, published.labels).policy
    assert policy is not None
    assert policy.horizontal_flip == (task in ("thyroid", "breast", "acl", "meniscus"))
    # The data set that the page names exists, and its classes are the published ones.
    found = builder(with_fold(config.dataset.name, config.dataset.fold), tmp_path)
    assert tuple(found.class_names()) == published.labels
    assert config.dataset.positive in found.class_names()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "dataset", "folders", "counts", "note"),
    [
        (
            "breast",
            "busi",
            {"images": "Dataset_BUSI_with_GT", "splits": "published_splits/breast/dataframe"},
            (63, 156),
            "1 image file is in more than one split",
        ),
        (
            "thyroid",
            "ddti/crops",
            {"crops": "ddti_crops", "splits": "published_splits/thyroid/dataframe"},
            (29, 72),
            "8 rows of the published tables are left out",
        ),
    ],
)
def test_a_smoke_epoch_on_the_real_images_tests_the_published_fold(
    start, tmp_path, shared_data, page, dataset, folders, counts, note
):
    root = tmp_path / "data/downloads/manual" / dataset.split("/")[0]
    root.mkdir(parents=True)
    for name, folder in folders.items():
        (root / name).symlink_to(shared_data / folder)
    workdir = tmp_path / "run"
    process = start(
        "main",
        f"--config=configs/{page}.py:smoke",
        f"--config.dataset.name={dataset}",
        f"--config.dataset.data_dir={tmp_path / 'data'}",
        f"--workdir={workdir}",
    )
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    result = json.loads((workdir / "result.json").read_text())
    assert (result["val"]["n"], result["test"]["n"]) == counts
    assert result["fold"] == 1
    assert note in (workdir / "report.html").read_text()
