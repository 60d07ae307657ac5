"""Anybody's own images: read as they are, or refused in sentences that name file and row."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from radimagenet_jax.data import datasets, preparation, registry
from radimagenet_jax.data.dicom import Window, decode_dicom
from radimagenet_jax.errors import DataError
from tests.dicom_files import dicom_file
from tests.tfds_builders.building import encoded, examples, notes, pixels

CT = Path(get_testdata_file("CT_small.dcm", download=False)).read_bytes()


def picture(number, kind="PNG", shape=(12, 10)):
    rng = np.random.default_rng(number)
    return encoded(rng.integers(0, 256, shape, np.uint8), kind)


@pytest.fixture
def source(tmp_path):
    """Twelve patients of two classes, two images each."""
    folder = tmp_path / "downloads/manual/image_csv/mine"
    (folder / "images").mkdir(parents=True)
    rows = ["filename,label,patient"]
    for number in range(24):
        (folder / f"images/{number}.png").write_bytes(picture(number))
        rows.append(f"images/{number}.png,{'sick' if number % 4 > 1 else 'fine'},p{number // 2}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def prepare(tmp_path, name="image_csv/mine"):
    return preparation.prepare(name, tmp_path, workers=2)


def everything(built):
    return {key: value for rows in examples(built).values() for key, value in rows.items()}


def edit(source, old, new):
    table = source / "labels.csv"
    assert old in table.read_text()
    table.write_text(table.read_text().replace(old, new))


def refuse(tmp_path, *messages, name="image_csv/mine"):
    with pytest.raises(DataError) as caught:
        prepare(tmp_path, name)
    for message in messages:
        assert message in str(caught.value)
    assert not (tmp_path / "image_csv").exists()
    return str(caught.value)


def test_a_folder_of_ones_own_is_nothing_to_warn_of(tmp_path, source, caplog):
    prepare(tmp_path)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_bytes_are_kept_patients_stay_together_and_a_note_tells_of_the_split(tmp_path, source):
    built = prepare(tmp_path)
    assert built.info.features["label"].names == ["fine", "sick"]
    found = examples(built)
    patients = [{row["patient"] for row in rows.values()} for rows in found.values()]
    assert set.union(*patients) == {f"p{number}" for number in range(12)}
    assert sum(map(len, patients)) == 12
    for key, row in everything(built).items():
        assert row["image"] == (source / key).read_bytes()
        assert row["mask"] == b""
    assert "no column split: fold 1 of a deterministic 5-fold split by patient" in notes(built)[0]


def test_every_image_is_tested_in_one_of_the_folds(tmp_path, source):
    tested = []
    for fold in range(1, 6):
        name = registry.with_fold("image_csv/mine", fold)
        tested += examples(prepare(tmp_path, name))["test"]
    assert len(tested) == len(set(tested)) == 24


def test_a_prepared_set_is_read_without_its_source(tmp_path, source):
    prepare(tmp_path)
    shutil.rmtree(tmp_path / "downloads")
    data = datasets.load("image_csv/mine", tmp_path, 16)
    assert data.class_names == ("fine", "sick")
    assert len(data.train) + len(data.val) + len(data.test) == 24


def test_the_users_own_split_is_used_as_it_is(tmp_path, source):
    rows = ["filename,label,split"]
    for number in range(24):
        split = ("train", "Validation", "test")[number % 3]
        rows.append(f"images/{number}.png,{number // 3 % 2},{split}")
    # A byte-order mark and Windows line ends, as Excel writes them.
    (source / "labels.csv").write_bytes(("\ufeff" + "\r\n".join(rows)).encode())
    built = prepare(tmp_path)
    for number, rows in enumerate(examples(built).values()):
        assert {int(Path(key).stem) % 3 for key in rows} == {number}
    assert notes(built) == []
    with pytest.raises(DataError, match="a column split, which leaves no fold 2"):
        prepare(tmp_path, "image_csv/mine_fold2")


def test_other_formats_become_png_with_the_same_pixels(tmp_path, source):
    grey = np.arange(120, dtype=np.uint8).reshape(12, 10)
    colour = np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)
    (source / "grey.tif").write_bytes(encoded(grey, "TIFF"))
    (source / "colour.tiff").write_bytes(encoded(colour, "TIFF"))
    (source / "ct.dcm").write_bytes(CT)
    (source / "photo.jpg").write_bytes(encoded(colour, "JPEG"))
    with (source / "labels.csv").open("a") as table:
        table.write("grey.tif,sick,\ncolour.tiff,sick,\nct.dcm,fine,\nphoto.jpg,fine,\n")
    found = everything(prepare(tmp_path))
    np.testing.assert_array_equal(pixels(found["grey.tif"]["image"]), grey)
    np.testing.assert_array_equal(pixels(found["colour.tiff"]["image"]), colour)
    shown = decode_dicom(CT, name="ct.dcm")[..., 0]
    np.testing.assert_array_equal(pixels(found["ct.dcm"]["image"]), shown)
    assert found["photo.jpg"]["image"] == (source / "photo.jpg").read_bytes()


def test_windows_frames_and_masks_come_from_the_table(tmp_path, source):
    pages = [Image.fromarray(np.full((12, 10), value, np.uint8)) for value in (10, 20)]
    stream = io.BytesIO()
    pages[0].save(stream, "TIFF", save_all=True, append_images=pages[1:])
    (source / "two.tif").write_bytes(stream.getvalue())
    (source / "ct.dcm").write_bytes(CT)
    mask = np.zeros((12, 10), np.uint8)
    mask[2:4, 3:5] = 1
    (source / "mask.png").write_bytes(encoded(mask))
    table = source / "labels.csv"
    lines = table.read_text().splitlines()
    lines = [lines[0] + ",mask,frame,window_center,window_width", *(f"{x},,,," for x in lines[1:])]
    lines[1] = lines[1].replace("p0,", "p0,mask.png")
    lines += ["two.tif,fine,q,,0,,", "two.tif,fine,q,,1,,", "ct.dcm,sick,r,,,40,80"]
    table.write_text("\n".join(lines))
    found = everything(prepare(tmp_path))
    assert [pixels(found[f"two.tif#{n}"]["image"])[0, 0] for n in (0, 1)] == [10, 20]
    shown = decode_dicom(CT, name="ct.dcm", windows=[Window(40, 80)])[..., 0]
    np.testing.assert_array_equal(pixels(found["ct.dcm"]["image"]), shown)
    np.testing.assert_array_equal(pixels(found["images/0.png"]["mask"]), mask * 255)


def test_dicom_images_of_a_patient_stay_together_and_nothing_tells_who(tmp_path, source):
    for path in (source / "images").iterdir():
        path.unlink()
    rows = ["filename,label"]
    for patient in range(10):
        own = CT.replace(b"1CT1", f"{patient:04}".encode())
        assert own != CT
        for number in range(2):
            (source / f"{patient}_{number}.dcm").write_bytes(own)
            rows.append(f"{patient}_{number}.dcm,{patient % 2}")
    (source / "labels.csv").write_text("\n".join(rows))
    built = prepare(tmp_path)
    found = examples(built)
    owners = [{key.partition("_")[0] for key in rows} for rows in found.values()]
    assert sum(map(len, owners)) == 10
    assert everything(built)["0_0.dcm"]["patient"] == "patient-00001"


def test_all_faults_of_the_table_are_told_at_once(tmp_path, source):
    with (source / "labels.csv").open("a") as table:
        table.write(
            "images/99.png,fine,x\nimages/0.PNG,fine,x\n/etc/passwd,fine,x\n../up.png,fine,x\n"
            "C:\\a.png,fine,x\nimages/0.png,sick,x\nimages/1.png,fine\nimages/2.png,,x\n"
        )
    message = refuse(
        tmp_path,
        "has 8 problems",
        "row 26: the filename 'images/99.png' is not in the folder of labels.csv;",
        "row 27: the filename 'images/0.PNG' is not in the folder of labels.csv (did you mean "
        "'images/0.png'?)",
        "row 28: the filename '/etc/passwd' leaves the table's folder",
        "row 29: ",
        "row 30: ",
        "row 31: 'images/0.png' is listed before, in row 2, with another label; keep one.",
        "row 32: has 2 fields where the header has 3",
        "row 33: the column 'label' is empty",
    )
    assert message.count("labels.csv, row") == 8


def test_all_damaged_images_are_told_with_their_rows(tmp_path, source):
    (source / "images/0.png").write_bytes(picture(0)[:-20])
    (source / "images/1.png").write_bytes(b"")
    (source / "images/2.png").write_bytes(encoded(np.zeros((4, 4), np.uint16)))
    (source / "images/3.png").write_bytes(b"no image at all")
    (source / "images/4.png").write_bytes(picture(4, "JPEG", (64, 64))[:-400])
    (source / "images/5.png").write_bytes(CT[:2000])
    message = refuse(tmp_path, "has 6 problems", "row 4: ", "more than 8 bits a channel")
    for row in range(2, 8):
        assert f"labels.csv, row {row}: " in message


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("filename,label", "file,label", "has no column 'filename' (its header has 'file'"),
        ("filename,label,patient", "filename;label;patient", "has no column 'filename'"),
        ("fine", "sick", "has only rows of the class 'sick'"),
        ("images/0.png,fine", "images/0.png,Fine", "'Fine' and 'fine', which differ only in"),
        ("patient", "split", "row 2: the split 'p0' is unknown; use train, val or test."),
        ("patient", "frame", "row 2: the frame 'p0' is no whole number; count from 0."),
        ("patient", "mask", "row 2: the mask 'p0' is not in the folder of labels.csv"),
    ],
)
def test_a_bad_table_is_refused(tmp_path, source, old, new, message):
    edit(source, old, new)
    refuse(tmp_path, message)


def test_an_empty_table_none_and_two_are_refused(tmp_path, source):
    table = source / "labels.csv"
    rows = table.read_text()
    table.write_text("filename,label\n")
    refuse(tmp_path, "labels.csv has no rows")
    table.unlink()
    refuse(tmp_path, "has no labels.csv; write one with a line filename,label")
    (source / "a.csv").write_text(rows)
    (source / "b.csv").write_text(rows)
    refuse(tmp_path, "has 2 CSV files (a.csv, b.csv); call the one")
    (source / "b.csv").unlink()
    assert len(everything(prepare(tmp_path))) == 24


def test_too_few_patients_for_a_split_are_told_with_the_remedy(tmp_path, source):
    edit(source, "p", "q")
    table = source / "labels.csv"
    lines = table.read_text().splitlines()[:9]
    table.write_text("\n".join(lines).replace("filename,label,qatient", "filename,label,patient")
                     .replace("qng", "png"))  # fmt: skip
    refuse(tmp_path, "fewer than the 5 folds", "give the split yourself")


@pytest.mark.parametrize("name", ["image_csv", "image_csv/", "image_csv/../up", "image_csv/a b"])
def test_a_name_that_is_no_folder_is_refused_with_those_that_are(tmp_path, source, name):
    refuse(
        tmp_path, "does not name your data: write image_csv/<folder>", "there are mine", name=name
    )


def test_a_folder_or_fold_that_does_not_exist_is_refused(tmp_path, source):
    refuse(tmp_path, "(there are mine): put your images there", name="image_csv/yours")
    refuse(tmp_path, "there is no fold 6; choose one of 1 to 5", name="image_csv/mine_fold6")


def test_a_link_to_a_folder_elsewhere_will_do(tmp_path, source):
    source.rename(tmp_path / "elsewhere")
    source.symlink_to(tmp_path / "elsewhere")
    assert len(everything(prepare(tmp_path))) == 24


def dicom_source(source, identify, count=60):
    """DICOM files without a column of patients; `identify` gives each its PatientID."""
    shutil.rmtree(source / "images")
    rows = ["filename,label"]
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 4000, (8, 8)).astype(np.uint16)
        name = f"{number:02}.dcm"
        (source / name).write_bytes(dicom_file(pixels, identify(number)))
        rows.append(f"{name},{'ab'[number % 2]}")
    (source / "labels.csv").write_text("\n".join(rows))


@pytest.mark.parametrize("name", ["ANONYMOUS", "unknown", "0", "X-77"])
def test_one_patientid_of_all_files_is_said_and_is_no_patient(tmp_path, source, name):
    dicom_source(source, lambda number: name)
    built = prepare(tmp_path)
    assert "60 of 60 images name no patient" in notes(built)[0]
    assert "X-77" not in notes(built)[0]
    assert "by image" in notes(built)[1]
    assert {split: len(rows) for split, rows in examples(built).items()} == {
        "train": 43, "val": 5, "test": 12,
    }  # fmt: skip


def test_one_patientid_of_most_files_is_said(tmp_path, source):
    dicom_source(source, lambda number: "ANONYMOUS" if number < 40 else f"p{number}")
    assert "40 of 60 images name no patient" in notes(prepare(tmp_path))[0]


def test_a_split_that_one_patient_makes_lopsided_is_said(tmp_path, source):
    dicom_source(source, lambda number: f"p{number}" if number > 25 else "p1")
    built = prepare(tmp_path)
    (note,) = [note for note in notes(built) if "lopsided" in note]
    assert "has 26 of 60" in note


def test_placeholders_in_the_column_patient_are_no_patient(tmp_path, source):
    for old, new in (("p0", "nan"), ("p1", "None"), ("p2", "unknown")):
        table = (source / "labels.csv").read_text()
        (source / "labels.csv").write_text(table.replace(f"{old}\n", f"{new}\n"))
    built = prepare(tmp_path)
    assert "6 of 24 images name no patient in the column patient" in notes(built)[0]
    assert [everything(built)[f"images/{n}.png"]["patient"] for n in (0, 3, 23)] == ["", "", "p11"]


def test_labels_that_look_alike_are_one(tmp_path, source):
    text = (source / "labels.csv").read_text().replace("sick", "épine  x")
    text = text.replace("0.png,fine", "0.png,fi\u200bne").replace(
        "2.png,épine  x", "2.png,e\u0301pine\u00a0x"
    )
    (source / "labels.csv").write_text(text, encoding="utf-8")
    assert list(prepare(tmp_path).info.features["label"].names) == ["fine", "épine x"]


def test_a_control_character_in_a_label_is_refused_without_being_printed(tmp_path, source):
    edit(source, "images/3.png,sick", "images/3.png,si\x1b]0;own\x07ck")
    sentence = refuse(tmp_path, "row 5: the column 'label' has a control character")
    assert "\x1b" not in sentence
    assert "\x07" not in sentence


def test_a_frame_beyond_all_measure_is_refused(tmp_path, source):
    edit(source, "filename,label,patient", "filename,label,patient,frame")
    text = (source / "labels.csv").read_text().replace("p0\n", "p0," + "9" * 5000 + "\n", 1)
    lines = [line if line.count(",") == 3 else f"{line}," for line in text.splitlines()]
    (source / "labels.csv").write_text("\n".join(lines))
    refuse(tmp_path, "row 2: the frame has 5,000 digits")


def test_every_damaged_image_is_told_even_if_all_are(tmp_path, source):
    for number in range(24):
        path = source / f"images/{number}.png"
        path.write_bytes(path.read_bytes()[:-20])
    sentence = refuse(tmp_path, "mine has 24 problems", "... and 4 more", "--skip_unreadable")
    assert sentence.count("cut short") == 20
    (listing,) = tmp_path.glob("*-problems.txt")
    assert str(listing) in sentence
    assert listing.read_text().count("cut short") == 24


def test_no_problem_follows_from_another_one(tmp_path, source):
    text = (source / "labels.csv").read_text().replace(".png,sick", ".jpg,sick")
    (source / "labels.csv").write_text(text)
    sentence = refuse(tmp_path, "mine has 12 problems")
    assert "only rows of the class" not in sentence


def test_a_folder_whose_names_are_decomposed_is_found(tmp_path, source):
    (source / "images/0.png").rename(source / "images/e\u0301.png")
    edit(source, "images/0.png", "images/\u00e9.png")
    assert "images/\u00e9.png" in everything(prepare(tmp_path))


def test_a_dicom_file_without_mark_and_suffix_is_read(tmp_path, source):
    import pydicom

    dataset = pydicom.dcmread(io.BytesIO(CT))
    del dataset.file_meta
    dataset.save_as(source / "IM0001", implicit_vr=False, little_endian=True)
    edit(source, "images/1.png", "IM0001")
    image = pixels(everything(prepare(tmp_path))["IM0001"]["image"])
    np.testing.assert_array_equal(image, decode_dicom(CT, name="ct").squeeze())
