"""Laws of inputs: what is read to be scored is what was learnt from, bit for bit, key for key."""

import io
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

from radimagenet_jax.data import datasets, inputs, preparation, registry
from radimagenet_jax.data.dicom import Window, decode_dicom
from radimagenet_jax.data.images import resize_nearest
from radimagenet_jax.errors import DataError
from tests.dicom_files import dicom_file
from tests.tfds_builders.building import encoded

RNG = np.random.default_rng(2)
GREY = RNG.integers(0, 256, (21, 30), np.uint8)
COLOUR = RNG.integers(0, 256, (30, 21, 3), np.uint8)
CT = dicom_file(RNG.integers(-1000, 1000, (20, 24)).astype(np.int16), "p", RescaleIntercept=-10)
FRAMES = RNG.integers(0, 256, (18, 8, 8), np.uint8)
CINE = dicom_file(FRAMES[0], "p", NumberOfFrames=18, PixelData=FRAMES.tobytes())
SIZE = 16


def pages(count):
    stream = io.BytesIO()
    first, *others = [Image.fromarray(GREY + np.uint8(number)) for number in range(count)]
    first.save(stream, "TIFF", save_all=True, append_images=others)
    return stream.getvalue()


def every_image(found, reading=inputs.Reading()):  # noqa: B008
    images = {}
    for entry in found.entries:
        first, frames = 0, 1
        while first < frames:
            part = inputs.read(entry, SIZE, reading, first=first)
            images |= part.images
            first, frames = first + inputs.FRAMES, part.frames
    return images


@pytest.fixture
def folder(tmp_path):
    """Every form that training reads, in the folder of a data set, with its table."""
    folder = tmp_path / "downloads/manual/image_csv/mine"
    (folder / "sub").mkdir(parents=True)
    files = {
        "grey.png": encoded(GREY),
        "colour.png": encoded(COLOUR),
        "sub/photo.jpg": encoded(COLOUR, "JPEG"),
        "sub/bitmap.bmp": encoded(COLOUR, "BMP"),
        "sub/pages.tif": pages(2),
        "sub/u\u0308ber.png": encoded(GREY[:9]),  # as macOS writes an umlaut
        "ct": CT,
        "cine.dcm": CINE,
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with zipfile.ZipFile(folder / "packed.zip", "w") as archive:
        archive.writestr("in/side.png", encoded(GREY[::-1]))
    rows = [
        *("grey.png,,,", "colour.png,,,", "sub/photo.jpg,,,", "sub/bitmap.bmp,,,"),
        *("sub/pages.tif,1,,", "sub/\u00fcber.png,,,", "packed/in/side.png,,,"),
        *("ct,,40,80", "cine.dcm,3,100,90", "cine.dcm,17,,"),
    ]
    lines = ["filename,frame,window_center,window_width,label,split"]
    for number, split in enumerate(("train", "val", "test")):
        shift = 3 * number
        lines += [f"{row},{('no', 'yes')[at % 2]},{split}" for at, row in
                  enumerate(rows[shift : shift + 3 + (number == 2)])]  # fmt: skip
    (folder / "labels.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder


def test_a_tables_images_are_those_that_a_data_set_of_it_trains_on(folder, tmp_path):
    data = datasets.load("image_csv/mine", tmp_path, SIZE)
    found = inputs.find(str(folder / "labels.csv"))
    assert found.failures == []
    ours = every_image(found)
    assert len(ours) == 10
    labels = {entry.key: entry.label for entry in found.entries}
    for split in (data.train, data.val, data.test):
        for key, image, label, patient in zip(
            split.keys, split.images, split.labels, split.patients, strict=True
        ):
            assert np.array_equal(np.broadcast_to(ours[key], image.shape), image), key
            assert labels[key] == data.class_names[label]
            (entry,) = [entry for entry in found.entries if entry.key == key]
            assert entry.patient == patient


def test_a_folder_gives_the_tables_keys_and_every_frame_one_of_its_own(folder):
    found = inputs.find(str(folder))
    assert found.others == {".csv": 1}
    images = every_image(found)
    single = ["colour.png", "ct", "grey.png", "packed/in/side.png", "sub/bitmap.bmp"]
    single += ["sub/photo.jpg", "sub/\u00fcber.png"]
    cine = [f"cine.dcm#{frame}" for frame in range(18)]
    assert sorted(images) == sorted([*single, *cine, "sub/pages.tif#0", "sub/pages.tif#1"])
    for frame, pixels in enumerate(FRAMES):
        expected = resize_nearest(pixels[..., None], SIZE)
        assert np.array_equal(images[f"cine.dcm#{frame}"], expected)
    assert np.array_equal(images["sub/pages.tif#1"], resize_nearest(GREY[..., None] + 1, SIZE))
    by_table = every_image(inputs.find(str(folder / "labels.csv")))
    assert np.array_equal(by_table["cine.dcm#17"], images["cine.dcm#17"])
    # Without a row's window the file's own grey values are shown.
    assert not np.array_equal(by_table["ct"], images["ct"])


def test_dicom_is_shown_as_the_data_set_of_a_run_shows_it(tmp_path):
    (tmp_path / "ct.dcm").write_bytes(CT)
    (tmp_path / "grey.png").write_bytes(encoded(GREY))
    reading = registry.reading("rsna_hemorrhage/stack_fold2")
    assert reading.windows == (Window(40, 80), Window(80, 200), Window(600, 2800))
    images = every_image(inputs.find(str(tmp_path)), reading)
    shown = decode_dicom(CT, name="ct", windows=reading.windows)
    assert shown.shape[-1] == 3
    assert np.array_equal(images["ct.dcm"], resize_nearest(shown, SIZE))
    assert images["grey.png"].shape == (SIZE, SIZE, 1)
    assert registry.reading("rsna_hemorrhage/brain_unwrapped").unwrap
    assert registry.reading("rsna_hemorrhage").windows == (Window(40, 80),)
    for name in ("image_csv/mine", "busi", "nobody/knows", ""):
        assert registry.reading(name, tmp_path) == inputs.Reading()


def test_own_dicom_data_are_shown_through_the_window_of_their_table_where_it_has_one(
    folder, tmp_path
):
    table = folder / "labels.csv"
    preparation.prepare("image_csv/mine", tmp_path)
    several = registry.reading("image_csv/mine", tmp_path)
    assert several.windows == ()
    assert "shown through 2 windows" in several.note
    table.write_text(table.read_text().replace("100,90", ","))
    shutil.rmtree(tmp_path / "image_csv")
    data = datasets.load("image_csv/mine", tmp_path, SIZE)
    one = registry.reading("image_csv/mine", tmp_path)
    assert one.windows == (Window(40, 80),)
    assert "through the window 40,80" in one.note
    # A folder says nothing of windows, and its image is still the one that was learnt from.
    learnt = data.test.images[data.test.keys.index("ct")]
    ours = every_image(inputs.find(str(folder)), one)["ct"]
    assert np.array_equal(np.broadcast_to(ours, learnt.shape), learnt)


def test_patterns_take_files_and_search_folders(folder):
    def keys(given):
        return [entry.key for entry in inputs.find(given).entries]

    assert keys(f"{folder}/*.png") == ["colour.png", "grey.png"]
    # A folder that is matched is searched, and what two patterns match is there once.
    assert keys(f"{folder}/s*") == [
        *("sub/bitmap.bmp", "sub/pages.tif", "sub/photo.jpg", "sub/\u00fcber.png")
    ]
    assert keys(f"{folder}/**") == keys(str(folder))
    assert keys(f"{folder}/packed.zip") == ["packed/in/side.png"]
    assert keys(f"{folder}/c*") == ["cine.dcm", "colour.png", "ct"]
    # A file that is named alone is meant, whatever it is: reading it says what is wrong.
    (folder / "notes.txt").write_text("text")
    (entry,) = inputs.find(str(folder / "notes.txt")).entries
    assert "is not an image" in str(inputs.read(entry, SIZE).images["notes.txt"])


def test_bad_rows_are_failures_with_their_row_and_the_others_are_read(folder):
    bad = {
        "grey.png,no,,": "is listed before",
        "grey.png,0,40,80": "only these have grey values for a window",
        "gone.png,,,": "is not in the folder",
        "../up.png,,,": "leaves the table's folder",
        "cine.dcm,18,,": "has no frame 18",
        "cine.dcm,,,": "has 18 frames; choose one",
        "cine.dcm,x,,": "is no whole number",
        "colour.png,,40,": "are no window",
        "ct": "has 1 fields where the header has 4",
    }
    table = folder / "bad.csv"
    lines = ["filename,frame,window_center,window_width", "grey.png,,,", *bad]
    lines[2] = "grey.png,,,"
    table.write_text("\n".join(lines))
    found = inputs.find(str(table))
    told = [failure.problem for failure in found.failures]
    images = every_image(found)
    told += [str(image) for image in images.values() if isinstance(image, DataError)]
    assert isinstance(images["grey.png"], np.ndarray)
    assert len(told) == len(bad)
    for number, (row, reason) in enumerate(bad.items(), start=3):
        assert sum(f"row {number}: " in one and reason in one for one in told) == 1, (row, told)


def test_a_path_that_is_there_twice_is_one_image_and_a_failure_where_the_two_differ(folder):
    before = [entry.key for entry in inputs.find(str(folder)).entries]
    composed = folder / "sub/\u00fcber.png"  # the other spelling of the same name
    composed.write_bytes((folder / "sub/u\u0308ber.png").read_bytes())
    found = inputs.find(str(folder))
    assert [entry.key for entry in found.entries] == before
    composed.write_bytes(encoded(GREY))
    found = inputs.find(str(folder))
    (failure,) = found.failures
    assert failure.key == "sub/\u00fcber.png"
    assert "is there twice with different content" in failure.problem
    assert len(found.entries) == len(before) - 1


def test_what_was_found_is_told_from_what_has_changed(folder):
    table = str(folder / "labels.csv")
    before = inputs.find(str(folder)).digest(), inputs.find(table).digest()
    assert before == (inputs.find(str(folder)).digest(), inputs.find(table).digest())
    assert before[0] != before[1]
    (folder / "grey.png").write_bytes(encoded(GREY[1:]))
    after = inputs.find(str(folder)).digest(), inputs.find(table).digest()
    assert not set(before) & set(after)
    text = (folder / "labels.csv").read_text()
    (folder / "labels.csv").write_text(text.replace("ct,,40,80", "ct,,40,90"))
    assert inputs.find(table).digest() != after[1]
