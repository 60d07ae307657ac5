"""The RSNA hemorrhage files in their true layout, and what is wrong with them."""

import numpy as np
import pytest

from radimagenet_jax.data import preparation, registry
from radimagenet_jax.data.dicom import decode_dicom
from radimagenet_jax.errors import ConfigError, DataError
from tests.dicom_files import dicom_file
from tests.tfds_builders.building import examples, notes, pixels
from tfds_builders.rsna_hemorrhage import rsna_hemorrhage_dataset_builder
from tfds_builders.rsna_hemorrhage.rsna_hemorrhage_dataset_builder import SUBTYPES, WINDOWS

# Stored values as the owners' scanners write them: unsigned, 1024 below in Hounsfield units.
SLICES = {
    f"ID_{number:09x}": np.random.default_rng(number).integers(900, 1300, (16, 16), np.uint16)
    for number in range(20)
}


def patient(image):
    return f"ID_patient{int(image[3:], 16) // 2}"


def label(image):
    return int(image[3:], 16) // 2 % 2


@pytest.fixture
def source(tmp_path):
    root = tmp_path / "downloads/manual/rsna_hemorrhage"
    (root / "stage_2_train").mkdir(parents=True)
    rows = ["ID,Label"]
    for image, values in SLICES.items():
        encoded = dicom_file(
            values, patient(image), RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=30,
            WindowWidth=60,
        )  # fmt: skip
        (root / f"stage_2_train/{image}.dcm").write_bytes(encoded)
        rows += [f"{image}_{kind},{label(image) * (kind == 'subdural')}" for kind in SUBTYPES]
        rows.append(f"{image}_any,{label(image)}")
    rows += rows[1:7]  # the owners have rows twice
    (root / "stage_2_train.csv").write_text("\n".join(rows))
    return root


def prepare(tmp_path, config):
    return preparation.prepare(f"rsna_hemorrhage/{config}", tmp_path, workers=2)


@pytest.mark.parametrize("config", WINDOWS)
def test_slices_are_windowed_labelled_and_kept_by_patient(tmp_path, source, config):
    built = prepare(tmp_path, config)
    splits = examples(built)
    owners = [{row["patient"] for row in rows.values()} for rows in splits.values()]
    assert sum(map(len, owners)) == len(set.union(*owners)) == 10
    assert not any("patient" in owner for owner in set.union(*owners))
    found = {key: row for rows in splits.values() for key, row in rows.items()}
    assert len(found) == 20
    for image in SLICES:
        row = found[f"{image}.dcm"]
        assert row["label"] == ("no", "yes")[label(image)]
        assert row["subtypes"].tolist() == [0, 0, 0, 0, label(image)]
        encoded = (source / f"stage_2_train/{image}.dcm").read_bytes()
        expected = decode_dicom(encoded, name=image, windows=WINDOWS[config])
        np.testing.assert_array_equal(pixels(row["image"]), expected.squeeze())
    assert "stands in" in notes(built)[0]


def test_the_tasks_folds_are_named_as_the_registry_names_them(tmp_path):
    for name in ("rsna_hemorrhage", "rsna_hemorrhage/bone", "rsna_hemorrhage/stack"):
        for fold in range(6):
            assert registry.builder(registry.with_fold(name, fold), tmp_path).builder_config


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("_any,0", "_all,0", "does not end in _any or a subtype"),
        ("000000000_any,0", "000000000_any,2", "row 7: the Label '2' is unknown"),
        ("000000002_any,1", "000000002_any,0", "'ID_000000002_any' is 0, which its subtypes"),
        ("000000003_epidural", "000000004_epidural", "no row 'ID_000000003_epidural'"),
        ("ID_000000005", "ID_00000000x", r"the image 'ID_00000000x\.dcm' .* is not there"),
        ("ID,Label", "id,label", "has no column 'ID'"),
    ],
)
def test_a_bad_table_is_refused(tmp_path, source, old, new, message):
    table = source / "stage_2_train.csv"
    table.write_text(table.read_text().replace(old, new))
    with pytest.raises(DataError, match=message):
        prepare(tmp_path, "brain")
    assert not (tmp_path / "rsna_hemorrhage").exists()


def test_a_row_that_contradicts_another_is_refused(tmp_path, source):
    with (source / "stage_2_train.csv").open("a") as table:
        table.write("\nID_000000000_any,1")
    with pytest.raises(DataError, match="row 128: 'ID_000000000_any' has another Label"):
        prepare(tmp_path, "brain")


def test_damaged_files_are_all_told(tmp_path, source):
    for image in list(SLICES)[:3]:
        path = source / f"stage_2_train/{image}.dcm"
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"(?s)3 problems.*cut short or damaged"):
        prepare(tmp_path, "brain")


def cut(source, image):
    path = source / f"stage_2_train/{image}.dcm"
    path.write_bytes(path.read_bytes()[:-100])


def test_unreadable_slices_are_left_out_on_request_and_the_notes_name_them(tmp_path, source):
    bad = list(SLICES)[3], list(SLICES)[4]
    for image in bad:
        cut(source, image)
    with pytest.raises(DataError, match="--skip_unreadable"):
        prepare(tmp_path, "brain")
    built = preparation.prepare("rsna_hemorrhage/brain", tmp_path, skip_unreadable=True)
    left = {key for rows in examples(built).values() for key in rows}
    assert left == {f"{image}.dcm" for image in SLICES if image not in bad}
    (note,) = [note for note in notes(built) if "unreadable" in note]
    assert note.startswith("2 of 20 images cannot be read and are left out")
    assert all(f"{image}.dcm" in note for image in bad)
    assert not list(tmp_path.rglob(".unfinished"))


def test_a_class_is_not_left_out(tmp_path, source):
    for image in SLICES:
        if label(image):
            cut(source, image)
    with pytest.raises(DataError, match="no image of the class 'yes' in the split"):
        preparation.prepare("rsna_hemorrhage/brain", tmp_path, skip_unreadable=True)
    assert not (tmp_path / "rsna_hemorrhage").exists()


def test_skipping_needs_one_process(tmp_path, source):
    with pytest.raises(ConfigError, match="leave out --beam_runner"):
        preparation.prepare(
            "rsna_hemorrhage/brain", tmp_path, skip_unreadable=True, beam_runner="DirectRunner"
        )


def test_wrapped_slices_are_recognised_and_unwrapped_by_a_configuration(tmp_path, source):
    wrapped = {}
    for number, image in enumerate(SLICES):
        if number % 5:
            continue
        hounsfield = np.random.default_rng(number).integers(-1000, 1000, (16, 16), np.int16)
        stored = np.where(hounsfield < 0, hounsfield + 4096, hounsfield).astype(np.uint16)
        tags = {"BitsStored": 12, "HighBit": 11, "RescaleSlope": 1, "RescaleIntercept": 0}
        encoded = dicom_file(stored, patient(image), **tags)
        (source / f"stage_2_train/{image}.dcm").write_bytes(encoded)
        wrapped[image] = dicom_file(hounsfield, patient(image))
    plain = prepare(tmp_path, "bone")
    again = prepare(tmp_path, "bone_unwrapped")
    assert any("4 of 20 slices store 12 bits" in note for note in notes(plain))
    assert any("made negative again" in note for note in notes(again))
    found = {key: row for rows in examples(again).values() for key, row in rows.items()}
    as_stored = {key: row for rows in examples(plain).values() for key, row in rows.items()}
    for image in SLICES:
        ours = pixels(found[f"{image}.dcm"]["image"])
        if image in wrapped:
            expected = decode_dicom(wrapped[image], name=image, windows=WINDOWS["bone"])
            np.testing.assert_array_equal(ours, expected.squeeze())
        else:
            np.testing.assert_array_equal(ours, pixels(as_stored[f"{image}.dcm"]["image"]))


def test_a_preparation_that_fails_late_goes_on_where_it_was(tmp_path, source, monkeypatch):
    monkeypatch.setattr(preparation, "KEEP_SECONDS", 0.0)
    bad = list(SLICES)[3]
    whole = (source / f"stage_2_train/{bad}.dcm").read_bytes()
    cut(source, bad)
    with pytest.raises(DataError, match="cut short"):
        prepare(tmp_path, "brain")
    read = []
    monkeypatch.setattr(
        rsna_hemorrhage_dataset_builder,
        "decode_dicom",
        lambda encoded, name, **options: (
            read.append(name), decode_dicom(encoded, name=name, **options))[1],
    )  # fmt: skip
    (source / f"stage_2_train/{bad}.dcm").write_bytes(whole)
    found = examples(prepare(tmp_path, "brain"))
    assert [name.rpartition("/")[2] for name in read] == [f"{bad}.dcm"]
    assert sum(map(len, found.values())) == 20
    assert not list(tmp_path.rglob(".unfinished"))
