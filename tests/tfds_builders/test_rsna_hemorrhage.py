"""The RSNA hemorrhage files in their true layout, and what is wrong with them."""

import numpy as np
import pytest

from radimagenet_jax.data import preparation, registry
from radimagenet_jax.data.dicom import decode_dicom
from radimagenet_jax.errors import DataError
from tests.dicom_files import dicom_file
from tests.tfds_builders.building import examples, notes, pixels
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
