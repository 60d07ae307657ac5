"""Laws of preparing and loading data sets: whole or not at all, exact, and told in a sentence."""

import os
import shutil
import signal
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from radimagenet_jax.data import datasets, image_builder, preparation, registry
from radimagenet_jax.data.images import decode, resize_nearest
from radimagenet_jax.errors import DataError
from tfds_builders.covid_ct.covid_ct_dataset_builder import Builder

COVID19 = "covid_ct/covid19_csv"
RNG = np.random.default_rng(0)
COUNTS = {"train": 6, "val": 4, "test": 2}


def write_source(data_dir: Path, *, colour: bool = False, counts: dict = COUNTS) -> Path:
    """Writes grey PNGs of several sizes in the published task's layout."""
    root = registry.manual_dir(COVID19, data_dir)
    root.mkdir(parents=True)
    for split, count in counts.items():
        rows = [",filename,label"]
        for number in range(count):
            pixels = RNG.integers(0, 256, (10 + number, 17), dtype=np.uint8)
            if colour and (split, number) == ("val", 0):
                pixels = RNG.integers(0, 256, (10, 17, 3), dtype=np.uint8)
            name = f"{split} ({number}).png"
            assert cv2.imwrite(str(root / name), pixels)
            rows.append(f"{number},{name},{('negative', 'positive')[number % 2]}")
        (root / f"{split}.csv").write_text("\n".join(rows))
    return root


@pytest.fixture
def data_dir(tmp_path):
    write_source(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_source(folder)
    preparation.prepare(COVID19, folder)
    return folder


def splits_of(dataset: datasets.Dataset) -> dict[str, datasets.Split]:
    return {"train": dataset.train, "val": dataset.val, "test": dataset.test}


def left_behind(data_dir: Path) -> list[str]:
    """Everything but what the user put there and TFDS' empty download folder."""
    found = data_dir.rglob("*")
    return [str(path.relative_to(data_dir)) for path in found if "downloads" not in path.parts]


def test_every_builder_folder_is_a_data_set_with_terms_and_a_title():
    assert {"covid_ct", "phantom"} <= set(registry.names())
    # `image_csv` is what its user makes it, and has no name of its own.
    for name in set(registry.names()) - {"image_csv"}:
        built = registry.builder(name, "/nowhere")
        assert built.name == name
        assert built.TERMS.endswith(".")
        assert len(registry.summary(name)) > len(name)
        assert not registry.summary(name).startswith("#")


def test_listing_data_sets_does_not_wait_for_tensorflow_datasets():
    code = (
        "import sys; from radimagenet_jax.data import datasets, registry; registry.names();"
        "print([name for name in ('tensorflow_datasets', 'jax') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_neither_tensorflow_nor_torch_is_imported_to_prepare_and_load(prepared):
    code = (
        "import sys; from radimagenet_jax.data import datasets;"
        f"datasets.load({COVID19!r}, {str(prepared)!r}, 8);"
        "print([name for name in ('tensorflow', 'torch', 'jax') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_what_is_loaded_is_what_the_source_holds(prepared):
    dataset = datasets.load(COVID19, prepared, 12)
    root = registry.manual_dir(COVID19, prepared)
    assert dataset.class_names == ("negative", "positive")
    assert dataset.terms == Builder.TERMS
    for name, split in splits_of(dataset).items():
        assert len(split) == COUNTS[name]
        assert split.images.shape == (COUNTS[name], 12, 12, 1)
        assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int32)
        assert split.ids.dtype == np.uint32
        assert set(split.keys) == {f"{name} ({number}).png" for number in range(COUNTS[name])}
        for image, label, key, patient, number in zip(
            split.images, split.labels, split.keys, split.patients, split.ids, strict=True
        ):
            source = decode((root / key).read_bytes(), name=key)
            np.testing.assert_array_equal(image, resize_nearest(source, 12))
            assert label == int(key[-6]) % 2
            assert patient == ""
            assert number == zlib.crc32(key.encode())


def test_one_colour_image_makes_the_whole_set_three_channels_with_grey_ones_replicated(tmp_path):
    write_source(tmp_path, colour=True)
    dataset = datasets.load(COVID19, tmp_path, 12)
    for split in splits_of(dataset).values():
        assert split.images.shape[1:] == (12, 12, 3)
    place = dataset.val.keys.index("val (0).png")
    assert (dataset.val.images[place, ..., 0] != dataset.val.images[place, ..., 1]).any()
    grey = np.delete(dataset.val.images, place, axis=0)
    np.testing.assert_array_equal(grey, grey[..., :1].repeat(3, axis=-1))


def test_the_fingerprint_depends_on_the_examples_alone(tmp_path):
    write_source(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    first = datasets.load(COVID19, tmp_path / "a", 8).fingerprint
    assert first == datasets.load(COVID19, tmp_path / "a", 16).fingerprint
    assert first == datasets.load(COVID19, tmp_path / "b", 8).fingerprint
    assert len(first) == 64


@pytest.mark.parametrize("change", ["an image", "a label", "a split", "a key"])
def test_any_change_of_the_examples_changes_the_fingerprint(tmp_path, change):
    write_source(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    root = registry.manual_dir(COVID19, tmp_path / "b")
    if change == "an image":
        path = root / "train (0).png"
        pixels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        pixels[0, 0] ^= 1
        cv2.imwrite(str(path), pixels)
    elif change == "a label":
        table = root / "train.csv"
        table.write_text(table.read_text().replace("(0).png,negative", "(0).png,positive"))
    elif change == "a split":
        first, second = (root / "train.csv", root / "val.csv")
        first_text, second_text = first.read_text(), second.read_text()
        first.write_text(second_text)
        second.write_text(first_text)
    elif change == "a key":
        (root / "train (0).png").rename(root / "renamed.png")
        table = root / "train.csv"
        table.write_text(table.read_text().replace("train (0).png", "renamed.png"))
    fingerprints = {datasets.load(COVID19, tmp_path / each, 8).fingerprint for each in "ab"}
    assert len(fingerprints) == 2


def test_what_a_reader_of_the_results_should_know_is_noted(data_dir):
    root = registry.manual_dir(COVID19, data_dir)
    shutil.copy(root / "train (0).png", root / "train (1).png")
    shutil.copy(root / "train (2).png", root / "val (0).png")
    notes = datasets.load(COVID19, data_dir, 8).notes
    assert "1 image file is there with more than one label." in notes
    assert "1 image file is in more than one split." in notes
    assert any("the patient of 12 of 12 images is unknown" in note for note in notes)


def test_the_real_data_have_the_published_counts_classes_and_patients(shared_data, tmp_path):
    manual = registry.manual_dir("covid_ct", tmp_path)
    manual.parent.mkdir(parents=True)
    manual.symlink_to(shared_data / "covid_ct")
    dataset = datasets.load("covid_ct", tmp_path, 64)
    splits = splits_of(dataset).values()
    assert [len(split) for split in splits] == [425, 118, 203]
    labels = np.concatenate([split.labels for split in splits])
    assert np.bincount(labels).tolist() == [397, 349]
    patients = [set(split.patients) for split in splits]
    assert len(set.union(*patients)) == sum(map(len, patients)) == 213 + 171
    assert not any("patient" in note for note in dataset.notes)


def test_a_missing_source_is_told_once_with_everything_to_do_about_it(tmp_path):
    with pytest.raises(DataError) as info:
        datasets.load("covid_ct", tmp_path / "data", 8)
    message = str(info.value)
    assert str(tmp_path / "data" / "downloads" / "manual" / "covid_ct") in message
    assert "https://github.com/UCSD-AI4H/COVID-CT" in message
    assert Builder.TERMS in message
    assert "\n" not in message
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("covid", r"no data set 'covid'; there are .*covid_ct, .*phantom"),
        ("covid_ct/csv", r"no configuration 'csv'; it has official, covid19_csv"),
        ("phantom/x", r"no configuration 'x'; it has none: leave it out"),
    ],
)
def test_an_unknown_name_is_refused_with_the_known_ones(tmp_path, name, message):
    with pytest.raises(DataError, match=message):
        preparation.prepare(name, tmp_path)


def test_a_bad_source_leaves_nothing_behind(data_dir):
    path = registry.manual_dir(COVID19, data_dir) / "test (1).png"
    path.write_bytes(path.read_bytes()[:80])
    with pytest.raises(DataError, match=r"test \(1\)\.png is cut short"):
        preparation.prepare(COVID19, data_dir)
    assert left_behind(data_dir) == []


def test_a_zip_that_escapes_its_folder_leaves_nothing_behind(data_dir):
    root = registry.manual_dir(COVID19, data_dir)
    with zipfile.ZipFile(root / "images.zip", "w") as archive:
        archive.writestr("../../../escaped.png", b"evil")
    with pytest.raises(DataError, match=r"images\.zip is refused"):
        preparation.prepare(COVID19, data_dir)
    assert left_behind(data_dir) == []
    assert not list(data_dir.rglob("escaped.png"))


def test_a_failure_leaves_other_configurations_alone(data_dir):
    kept = Path(preparation.prepare(COVID19, data_dir).data_dir)
    with pytest.raises(DataError, match=r"has no COVID-CT-MetaInfo\.csv"):
        preparation.prepare("covid_ct/official", data_dir)
    assert registry.is_prepared(COVID19, data_dir)
    assert [path.name for path in kept.parents[1].iterdir() if path.name[0] != "."] == [
        "covid19_csv"
    ]


def test_an_interrupt_leaves_nothing_behind_and_the_next_run_builds(data_dir):
    def interrupt(done: int, total: int | None) -> None:
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        preparation.prepare(COVID19, data_dir, on_progress=interrupt)
    assert left_behind(data_dir) == []
    assert len(datasets.load(COVID19, data_dir, 8).train) == COUNTS["train"]


WAIT_IN_THE_MIDDLE = """
import sys, time
from radimagenet_jax.data import preparation
def wait(done, total):
    if done == 8:
        print("half", flush=True)
        time.sleep(60)
preparation.prepare({name!r}, {folder!r}, on_progress=wait)
"""


def test_what_a_killed_run_left_is_removed_and_built_anew(data_dir):
    code = WAIT_IN_THE_MIDDLE.format(name=COVID19, folder=str(data_dir))
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout.readline() == "half\n"
        process.send_signal(signal.SIGKILL)
    assert any("incomplete" in name for name in left_behind(data_dir))
    assert not registry.is_prepared(COVID19, data_dir)
    assert len(datasets.load(COVID19, data_dir, 8).train) == COUNTS["train"]
    assert not any("incomplete" in name for name in left_behind(data_dir))


def test_a_run_after_a_kill_goes_on_where_it_was(data_dir, monkeypatch):
    code = WAIT_IN_THE_MIDDLE.format(name=COVID19, folder=str(data_dir))
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout.readline() == "half\n"
        process.send_signal(signal.SIGKILL)
    read = []
    check = image_builder.check_image
    monkeypatch.setattr(
        image_builder,
        "check_image",
        lambda encoded, name: (read.append(name), check(encoded, name=name)),
    )
    reported = []
    preparation.prepare(COVID19, data_dir, on_progress=lambda done, total: reported.append(done))
    assert 0 < len(read) <= sum(COUNTS.values()) - 7
    assert reported == list(range(1, sum(COUNTS.values()) + 1))
    assert len(datasets.load(COVID19, data_dir, 8).train) == COUNTS["train"]
    assert not list(data_dir.rglob(".unfinished"))


def test_processes_that_prepare_the_same_set_wait_for_each_other(data_dir):
    code = (
        "from radimagenet_jax.data import preparation;"
        f"preparation.prepare({COVID19!r}, {str(data_dir)!r})"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) for _ in range(3)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert not any("incomplete" in name for name in left_behind(data_dir))
    assert len(datasets.load(COVID19, data_dir, 8).train) == COUNTS["train"]


def test_a_prepared_set_needs_no_source_and_is_not_built_again(data_dir):
    folder = Path(preparation.prepare(COVID19, data_dir).data_dir)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    shutil.rmtree(registry.manual_dir(COVID19, data_dir))
    assert len(datasets.load(COVID19, data_dir, 8).test) == COUNTS["test"]
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_progress_counts_every_example_once(data_dir):
    calls = []
    preparation.prepare(COVID19, data_dir, on_progress=lambda *call: calls.append(call))
    assert calls == [(done, None) for done in range(1, 13)]


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_the_number_of_workers_does_not_change_what_is_written(data_dir, workers):
    expected = datasets.load(COVID19, data_dir, 8).fingerprint
    other = data_dir / "other"
    (other / "downloads").mkdir(parents=True)
    shutil.copytree(data_dir / "downloads/manual", other / "downloads/manual")
    preparation.prepare(COVID19, other, workers=workers)
    assert datasets.load(COVID19, other, 8).fingerprint == expected


DAMAGE = {
    "no description": lambda folder: (folder / "dataset_info.json").unlink(),
    "a cut description": lambda folder: os.truncate(folder / "dataset_info.json", 100),
    "no records": lambda folder: next(folder.glob("*-val.array_record*")).unlink(),
    "cut records": lambda folder: os.truncate(next(folder.glob("*-val.array_record*")), 40_000),
    "empty records": lambda folder: os.truncate(next(folder.glob("*-val.array_record*")), 0),
    "records of another split": lambda folder: shutil.copy(
        next(folder.glob("*-val.array_record*")), next(folder.glob("*-test.array_record*"))
    ),
    "an emptied folder": lambda folder: [path.unlink() for path in folder.iterdir()],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_prepared_set_is_an_error_with_the_folder_to_delete(prepared, tmp_path, damage):
    shutil.copytree(prepared, tmp_path / "data")
    folder = Path(registry.builder(COVID19, tmp_path / "data").data_dir)
    DAMAGE[damage](folder)
    with pytest.raises(DataError, match=r"damaged .*delete this folder and prepare") as info:
        datasets.load(COVID19, tmp_path / "data", 8)
    assert str(folder) in str(info.value)
    assert "\n" not in str(info.value)
    # The remedy works.
    shutil.rmtree(folder)
    assert len(datasets.load(COVID19, tmp_path / "data", 8).val) == COUNTS["val"]


def test_a_set_built_in_another_file_format_is_an_error_with_the_flag_to_give(prepared, tmp_path):
    shutil.copytree(prepared, tmp_path / "data")
    path = Path(registry.builder(COVID19, tmp_path / "data").data_dir) / "dataset_info.json"
    path.write_text(path.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(DataError, match=r"written as tfrecord.*--file_format=array_record"):
        datasets.load(COVID19, tmp_path / "data", 8)


def test_a_split_without_one_of_the_classes_is_refused(tmp_path):
    write_source(tmp_path, counts={"train": 4, "val": 1, "test": 2})
    with pytest.raises(DataError, match=r"val\.csv has only rows of the class 'negative'"):
        datasets.load(COVID19, tmp_path, 8)


def test_a_data_dir_that_cannot_be_written_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"file/phantom cannot be written \(Not a directory\)"):
        preparation.prepare("phantom", tmp_path / "file")


def test_a_full_disk_is_an_error_and_leaves_nothing_behind(data_dir):
    # A limit on the size of files stands in for a disk that fills up.
    code = (
        "import resource\n"
        "from radimagenet_jax.data import preparation\n"
        "from radimagenet_jax.errors import DataError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
        "try:\n"
        f"    preparation.prepare({COVID19!r}, {str(data_dir)!r})\n"
        "except DataError as error:\n"
        "    print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "cannot be written (File too large); free some space" in run.stdout
    assert left_behind(data_dir) == []


def test_tfds_itself_reads_what_was_prepared(prepared):
    built = tfds.builder_from_directory(registry.builder(COVID19, prepared).data_dir)
    source = built.as_data_source("train")
    assert len(source) == COUNTS["train"]
    assert source[0]["image"].shape[-1] == 3  # decoded by TFDS, as its feature declares


def test_a_defect_of_a_builder_is_not_mistaken_for_a_damaged_folder(tmp_path, monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise ValueError("a defect")

    monkeypatch.setattr(Builder, "__init__", broken)
    with pytest.raises(ValueError, match="a defect"):
        registry.builder("covid_ct", tmp_path)
