"""Laws of the localisation: its figures from the files alone, its page, and what it refuses."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest

from radimagenet_jax import load_pretrained, localise
from radimagenet_jax.data import datasets, lesions
from radimagenet_jax.errors import CheckpointError, ConfigError, DataError
from radimagenet_jax.localisation import measure, runs
from tests.tfds_builders.building import encoded

# Three by three places at 96 pixels, in seconds.
_PAGE = '''
"""A run of seconds, for tests."""
from configs import base


def get_config(argument=None):
    config = base.get_config()
    config.dataset.name = "{dataset}"
    config.dataset.data_dir = "{data_dir}"
    config.model_options.stage_sizes = (1, 1, 1, 1)
    config.model_options.width = 8
    config.augment = "none"
    config.image_size = 96
    config.batch_size = 16
    config.batch_norm_momentum = 0.8
    config.epochs = {epochs}
    return config
'''
SIZES = {"train": 32, "val": 12, "test": 16}
HEIGHT, WIDTH = 60, 48


def write_images(folder, name, masked=("train", "val", "test")):
    """Grey noise with a square of which the class tells how bright it is, and its mask."""
    source = folder / f"downloads/manual/image_csv/{name}"
    source.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = ["filename,label,patient,split,mask"]
    for split, count in SIZES.items():
        for number in range(count):
            pixels = rng.integers(0, 60, (HEIGHT, WIDTH), np.uint8)
            top, left = int(rng.integers(0, 36)), int(rng.integers(0, 26))
            mask = np.zeros((HEIGHT, WIDTH), np.uint8)
            mask[top : top + 20, left : left + 20] = 255
            label = ("benign", "malignant")[number % 2]
            pixels[mask > 0] += np.uint8(60 + 130 * (number % 2))
            key = f"{split}{number}.png"
            (source / key).write_bytes(encoded(pixels))
            # Every eighth image has no mask.
            has_mask = split in masked and number % 8 != 7
            if has_mask:
                (source / f"{split}{number}_mask.png").write_bytes(encoded(mask))
            named = f"{split}{number}_mask.png" if has_mask else ""
            rows.append(f"{key},{label},{split}p{number // 2},{split},{named}")
    (source / "labels.csv").write_text("\n".join(rows))


def trained(start, folder, data_dir, dataset, epochs):
    page = folder / "page.py"
    page.write_text(_PAGE.format(dataset=dataset, data_dir=data_dir, epochs=epochs))
    process = start("main", f"--config={page}", f"--workdir={folder / 'run'}")
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    return folder / "run"


@pytest.fixture(scope="module")
def masked_data(tmp_path_factory) -> Path:
    """A data directory of images with masks."""
    folder = tmp_path_factory.mktemp("masked")
    write_images(folder, "mine")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory, start, masked_data) -> Path:
    """A finished run."""
    return trained(start, tmp_path_factory.mktemp("run"), masked_data, "image_csv/mine", 4)


@pytest.fixture(scope="module")
def output(tmp_path_factory, run) -> Path:
    """Its localisation."""
    folder = tmp_path_factory.mktemp("localised") / "out"
    assert localise.main([f"--workdir={run}", f"--output={folder}"]) == 0
    return folder


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_it_leaves_a_page_tables_and_figures_and_nothing_half_written(output):
    assert {path.name for path in output.iterdir()} == {
        *(".gitignore", "images.csv", "localisation.html", "localisation.json", "sweep.csv")
    }
    assert (output / ".gitignore").read_text() == "*\n"
    record = json.loads((output / "localisation.json").read_text())
    assert record["of"] == "malignant"
    assert record["images"] == {
        "val": {"lesions": 11, "without": 1},
        "test": {"lesions": 14, "without": 2},
    }
    assert record["intervals_over"] == {"unit": "patient", "count": 8}
    page = (output / "localisation.html").read_text()
    assert "2 of 16 test images have no lesion in a mask" in page
    assert "a disc in the middle of the image" in page
    assert "not for clinical use" in page
    assert page.count('src="data:image/png;base64,') == 3 * 12
    assert "http" not in page
    assert "<script" not in page


def test_the_figures_are_those_of_the_images(output):
    record = json.loads((output / "localisation.json").read_text())
    rows = [row for row in table(output / "images.csv") if row["split"] == "test"]
    for kind, found in record["maps"].items():
        for name in ("dice", "iou", "points"):
            mean = np.mean([float(row[f"{name}_{kind}"]) for row in rows])
            assert found["test"][name]["mean"] == pytest.approx(mean)
        if kind != "map":
            mean = np.mean([float(row["dice_map"]) - float(row[f"dice_{kind}"]) for row in rows])
            assert found["map_minus_this"]["mean"] == pytest.approx(mean)
    grid = [float(row["dice_grid"]) for row in rows]
    assert np.mean(grid) > max(
        record["maps"][kind]["test"]["dice"]["mean"] for kind in ("disc", "random")
    )


def test_the_threshold_is_the_best_of_the_sweep_on_validation(output):
    threshold = json.loads((output / "localisation.json").read_text())["maps"]["map"]["threshold"]
    rows = [row for row in table(output / "sweep.csv") if row["map"] == "map"]
    val = [row for row in rows if row["split"] == "val"]
    assert len(val) == 2 * 49
    best = max(val, key=lambda row: float(row["dice"]))
    assert (best["family"], float(best["threshold"])) == (threshold["family"], threshold["value"])
    assert [row["chosen"] for row in val].count("1") == 1
    assert best["chosen"] == "1"


def test_an_images_dice_is_what_its_map_gives_step_by_step(run, output, masked_data):
    threshold = json.loads((output / "localisation.json").read_text())["maps"]["map"]["threshold"]
    row = max(
        (row for row in table(output / "images.csv") if row["split"] == "test"),
        key=lambda row: float(row["dice_map"]),
    )
    net = load_pretrained(run)
    dataset = datasets.load("image_csv/mine", masked_data, 96)
    place = dataset.test.keys.index(row["key"])
    raw = net.cam(dataset.test.images[place : place + 1], of="malignant", size=0)[0]
    assert raw.shape == (3, 3)
    big = np.asarray(jax.image.resize(np.maximum(raw, 0), (HEIGHT, WIDTH), "bilinear"))
    if threshold["family"] == "maximum":
        region = big >= threshold["value"] * big.max()
    else:
        region = big >= np.sort(big, axis=None)[int(threshold["value"] * big.size)]
    source = masked_data / "downloads/manual/image_csv/mine"
    mask = cv2.imread(str(source / row["key"].replace(".png", "_mask.png")), 0) > 0
    expected = 2 * (region & mask).sum() / (region.sum() + mask.sum())
    assert expected > 0
    # A place on the threshold may fall on either side: OpenCV and JAX interpolate to 1e-6.
    assert float(row["dice_map"]) == pytest.approx(expected, abs=0.01)
    assert float(row["lesion"]) == pytest.approx(mask.mean())


def test_what_test_images_say_does_not_change_the_threshold(run):
    opened = runs.opened(run)
    val = opened.lesions["val"]
    other = replace(opened, lesions={"val": val, "test": lesions.find(opened.dataset.train, "x")})
    found = [measure.measure(each, None, lambda count: None) for each in (opened, other)]
    assert len(found[0].maps) == 14
    assert len(found[1].maps) == 28
    for kind in ("map", "random", "grid"):
        assert found[0].judged[kind].threshold == found[1].judged[kind].threshold


def test_a_run_against_itself_has_no_difference(run, tmp_path, capsys):
    copy = shutil.copytree(run, tmp_path / "copy")
    arguments = [f"--workdir={run}", f"--against={copy}", f"--output={tmp_path / 'out'}"]
    assert localise.main(arguments) == 0
    printed = capsys.readouterr()
    assert printed.out.strip() == str(tmp_path / "out/localisation.html")
    record = json.loads((tmp_path / "out/localisation.json").read_text())
    assert record["maps"]["against"]["map_minus_this"] == {"mean": 0, "ci95": [0, 0]}
    assert "do not tell" in printed.err
    assert "do not tell" in (tmp_path / "out/localisation.html").read_text()


def test_runs_that_were_tested_on_other_lesions_are_not_compared(run):
    opened = runs.opened(run)
    test = opened.lesions["test"]
    fewer = replace(test, places=test.places[2:], shares=test.shares[2:])
    other = replace(opened, folder=Path("other"), lesions={**opened.lesions, "test": fewer})
    for pair in ((opened, other), (other, opened)):
        with pytest.raises(DataError, match=f"'{test.keys[0]}', '{test.keys[1]}' of {run} are"):
            runs.check_same(*pair)
    changed = replace(opened, dataset=replace(opened.dataset, fingerprint="0" * 64))
    with pytest.raises(DataError, match="different data"):
        runs.check_same(opened, changed)
    drawn = {**opened.lesions, "val": replace(test, shares=test.shares / 2)}
    with pytest.raises(DataError, match="masks of image_csv/mine are not the same"):
        runs.check_same(opened, replace(opened, lesions=drawn))
    runs.check_same(opened, opened)


def test_another_class_has_other_maps(run, output, tmp_path):
    localise.main([f"--workdir={run}", "--of=benign", f"--output={tmp_path / 'out'}"])
    assert json.loads((tmp_path / "out/localisation.json").read_text())["of"] == "benign"
    own, other = (
        [row["dice_map"] for row in table(folder / "images.csv")]
        for folder in (output, tmp_path / "out")
    )
    assert own != other


def test_what_cannot_be_measured_is_one_sentence_and_leaves_nothing(run, tmp_path):
    out = tmp_path / "out"

    def refuse(error, message, *arguments):
        with pytest.raises(error, match=message):
            localise.main([*arguments, f"--output={out}"])
        assert not out.exists()

    refuse(ConfigError, "holds no run", f"--workdir={tmp_path}")
    refuse(ConfigError, "no class 'cyst'; the network has", f"--workdir={run}", "--of=cyst")
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / "result.json").unlink()
    refuse(ConfigError, "is not finished", f"--workdir={copy}")
    refuse(ConfigError, "is not finished", f"--workdir={run}", f"--against={copy}")
    shutil.rmtree(copy / "checkpoints")
    (copy / "result.json").write_text("{}")
    refuse(CheckpointError, "no checkpoint of a whole epoch", f"--workdir={copy}")
    # Other pictures under the name of the run's data set.
    other = tmp_path / "other"
    write_images(other, "mine")
    (other / "downloads/manual/image_csv/mine/test0.png").write_bytes(
        encoded(np.zeros((HEIGHT, WIDTH), np.uint8))
    )
    refuse(ConfigError, "is not the data that", f"--workdir={run}", f"--data_dir={other}")


def test_a_data_set_without_masks_or_a_split_without_lesions_is_refused(data_dir, tmp_path):
    phantoms = datasets.load("phantom", data_dir, 32, streaming="true")
    with pytest.raises(DataError, match="phantom has no masks of lesions; take a data set"):
        lesions.find(phantoms.test, "phantom")
    write_images(tmp_path, "unmasked", masked=("train", "test"))
    dataset = datasets.load("image_csv/unmasked", tmp_path, 32, streaming="true")
    assert len(lesions.find(dataset.test, "image_csv/unmasked")) == 14
    with pytest.raises(DataError, match="no image of the val split of image_csv/unmasked"):
        lesions.find(dataset.val, "image_csv/unmasked")


def test_breast_images_without_the_owners_masks_are_refused(shared_data, tmp_path):
    manual = tmp_path / "downloads/manual/busi"
    manual.mkdir(parents=True)
    (manual / "images").symlink_to(shared_data / "Dataset_BUSI_with_GT")
    if list((shared_data / "Dataset_BUSI_with_GT").rglob("*_mask*.png")):
        pytest.skip("the breast images here have their masks")
    dataset = datasets.load("busi/fold1", tmp_path, 32, streaming="true")
    with pytest.raises(DataError, match="no image of the test split of busi/fold1 has a mask"):
        lesions.find(dataset.test, "busi/fold1")


def test_the_real_thyroid_nodules_are_measured(shared_data, start, tmp_path):
    manual = tmp_path / "downloads/manual/ddti"
    manual.mkdir(parents=True)
    (manual / "crops").symlink_to(shared_data / "ddti_crops")
    (manual / "splits").symlink_to(shared_data / "published_splits/thyroid/dataframe")
    run = trained(start, tmp_path, tmp_path, "ddti/crops_fold1", 1)
    assert localise.main([f"--workdir={run}"]) == 0
    record = json.loads((run / "localisation/localisation.json").read_text())
    # One of the 341 crops has an empty mask.
    left_out = sum(split["without"] for split in record["images"].values())
    assert (
        record["images"]["test"]["lesions"] + record["images"]["val"]["lesions"] == 101 - left_out
    )
    assert left_out <= 1
    dice = {kind: found["test"]["dice"]["mean"] for kind, found in record["maps"].items()}
    # A crop is made around its nodule: the disc is hard to beat.
    assert dice["disc"] > 0.5
    assert dice["grid"] > dice["disc"] > dice["random"]
    low, high = record["maps"]["disc"]["test"]["dice"]["ci95"]
    assert low < dice["disc"] < high
