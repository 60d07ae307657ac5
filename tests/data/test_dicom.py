"""DICOM files become the images that the standard and pydicom's own functions make of them."""

import io
import logging
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.pixels import (
    apply_modality_lut,
    apply_voi_lut,
    apply_windowing,
    pixel_array,
)
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from radimagenet_jax.data import dicom
from radimagenet_jax.data.dicom import (
    Window,
    decode_dicom,
    header_of,
    is_dicom,
    pseudonym,
    read_header,
)
from radimagenet_jax.data.source_files import SourceFile
from radimagenet_jax.errors import DataError

SECRET = "Doe^Jane"


def bundled(name):
    """One of the files in pydicom's wheel."""
    return Path(get_testdata_file(name, download=False)).read_bytes()


def file(pixels, **tags):
    """A DICOM file of (H, W), (N, H, W) or (H, W, 3) pixels."""
    pixels = np.asarray(pixels)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3"
    dataset.PatientName, dataset.PatientID = SECRET, "4711-secret"
    colour = pixels.shape[-1] == 3 and pixels.ndim > 2
    frames = pixels.ndim - colour == 3
    dataset.SamplesPerPixel = 3 if colour else 1
    if colour:
        dataset.PlanarConfiguration = 0
    if frames:
        dataset.NumberOfFrames = len(pixels)
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape[frames : frames + 2]
    bits = 8 * pixels.dtype.itemsize
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    return written(dataset)


def written(dataset):
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()


def to_bytes(shades):
    return np.floor(shades * 255 + 0.5).astype(np.uint8)


RAMP = np.arange(-1024, 3072, dtype=np.int16).reshape(64, 64)


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm"])
def test_the_files_own_display_is_pydicoms(name):
    dataset = pydicom.dcmread(io.BytesIO(bundled(name)))
    values = apply_modality_lut(pixel_array(dataset), dataset)
    if "WindowCenter" in dataset:
        shown = apply_windowing(values, dataset).astype(np.float64)
        low, high = output_range(dataset)
        expected = to_bytes((shown - low) / (high - low))
    else:
        inside = values[pixel_array(dataset) != dataset.get("PixelPaddingValue")]
        low, high = inside.min(), inside.max()
        expected = to_bytes(np.clip((values - low) / (high - low), 0, 1))
    image = decode_dicom(bundled(name), name=name)
    assert image.shape == (*expected.shape, 1)
    np.testing.assert_array_equal(image[..., 0], expected)


def output_range(dataset):
    """The range over which pydicom spreads a window: that of all values that can be stored."""
    bits = int(dataset.BitsStored)
    low, high = (
        (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        if dataset.PixelRepresentation
        else (
            0,
            2**bits - 1,
        )
    )
    slope = float(dataset.get("RescaleSlope", 1))
    intercept = float(dataset.get("RescaleIntercept", 0))
    return low * slope + intercept, high * slope + intercept


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("rescale", [(1, 0), (1, -1024), (2, 5)])
def test_every_window_function_is_pydicoms(function, rescale):
    encoded = file(
        RAMP,
        WindowCenter=[40, 600],
        WindowWidth=[80, 2800],
        VOILUTFunction=function,
        RescaleSlope=rescale[0],
        RescaleIntercept=rescale[1],
    )
    dataset = pydicom.dcmread(io.BytesIO(encoded))
    shown = apply_windowing(apply_modality_lut(pixel_array(dataset), dataset), dataset)
    low, high = output_range(dataset)
    expected = (shown - low) / (high - low) * 255
    image = decode_dicom(encoded, name="a.dcm")[..., 0]
    np.testing.assert_allclose(image, expected, atol=0.5 + 1e-6)


def test_a_voi_lut_is_pydicoms_and_goes_before_a_window():
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [256, 100, 12])
    table = np.linspace(4095, 0, 256).astype(np.uint16)
    item.add_new("LUTData", "US", table.tolist())
    pixels = np.arange(0, 512, dtype=np.uint16).reshape(16, 32)
    encoded = file(pixels, VOILUTSequence=[item], WindowCenter=5, WindowWidth=3)
    expected = apply_voi_lut(pixels, pydicom.dcmread(io.BytesIO(encoded)), prefer_lut=True)
    image = decode_dicom(encoded, name="a.dcm")[..., 0]
    np.testing.assert_array_equal(image, to_bytes(expected / 4095))


def test_a_given_window_goes_before_the_files_own_in_hounsfield_units():
    stored = (RAMP + 1024).astype(np.uint16)
    encoded = file(
        stored, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=600, WindowWidth=2800
    )
    image = decode_dicom(encoded, name="a.dcm", windows=[Window(40, 80)])[..., 0]
    assert (image[RAMP <= 0] == 0).all()
    assert (image[RAMP >= 79] == 255).all()
    assert image[RAMP == 40] == pytest.approx(129, abs=1)


def test_three_windows_are_the_channels():
    windows = [Window(40, 80), Window(80, 200), Window(600, 2800)]
    stacked = decode_dicom(file(RAMP), name="a.dcm", windows=windows)
    assert stacked.shape == (64, 64, 3)
    for channel, window in enumerate(windows):
        single = decode_dicom(file(RAMP), name="a.dcm", windows=[window])
        np.testing.assert_array_equal(stacked[..., channel], single[..., 0])


@pytest.mark.parametrize(("center", "width"), [(40, 0.5), (40, -3), (float("nan"), 80)])
def test_a_window_without_width_is_refused(center, width):
    with pytest.raises(DataError, match="width of at least 1"):
        Window(center, width)


def test_monochrome1_is_the_inverse_of_monochrome2():
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    bright = decode_dicom(file(pixels), name="a.dcm")
    dark = decode_dicom(file(pixels, PhotometricInterpretation="MONOCHROME1"), name="a.dcm")
    np.testing.assert_array_equal(bright[..., 0], pixels)
    np.testing.assert_array_equal(dark, 255 - bright)


def test_bits_above_the_stored_ones_do_not_count():
    pixels = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    tags = {"BitsStored": 12, "HighBit": 11, "WindowCenter": 2048, "WindowWidth": 4096}
    clean = decode_dicom(file(pixels, **tags), name="a.dcm")
    overlay = decode_dicom(file(pixels | 0xF000, **tags), name="a.dcm")
    np.testing.assert_array_equal(overlay, clean)
    assert clean[0, 0] == 0
    assert clean[-1, -1] == 255


def test_padding_stays_out_of_the_range_and_becomes_black():
    pixels = np.full((8, 8), -2000, np.int16)
    pixels[2:6, 2:6] = np.arange(16).reshape(4, 4)
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        encoded = file(pixels, PixelPaddingValue=-2000, PhotometricInterpretation=photometric)
        image = decode_dicom(encoded, name="a.dcm")[..., 0]
        assert image[0, 0] == 0
        assert sorted({int(image[2, 2]), int(image[5, 5])}) == [0, 255]


def frame_count(encoded, *, name):
    """How many frames a file has, by what is said where one is asked for that it lacks."""
    with pytest.raises(DataError, match="has no frame") as info:
        decode_dicom(encoded, name=name, frame=10**9)
    return int(re.search(r"choose one of 0 to (\d+)", str(info.value))[1]) + 1


def decode_dicom_frames(encoded, *, name):
    """All frames, each read alone."""
    count = frame_count(encoded, name=name)
    return np.stack([decode_dicom(encoded, name=name, frame=i) for i in range(count)])


def test_frames_are_chosen_by_number_or_all_read():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 6, 8), np.uint8)
    encoded = file(pixels)
    assert frame_count(encoded, name="a.dcm") == 3
    np.testing.assert_array_equal(decode_dicom_frames(encoded, name="a.dcm")[..., 0], pixels)
    np.testing.assert_array_equal(decode_dicom(encoded, name="a.dcm", frame=2)[..., 0], pixels[2])
    with pytest.raises(DataError, match=r"a\.dcm has 3 frames; choose one"):
        decode_dicom(encoded, name="a.dcm")
    for frame in (3, -1):
        with pytest.raises(DataError, match=rf"has no frame {frame}; choose one of 0 to 2"):
            decode_dicom(encoded, name="a.dcm", frame=frame)


def test_a_frames_own_rescale_and_window_go_before_the_shared_ones():
    def group(intercept):
        item, rescale, voi = Dataset(), Dataset(), Dataset()
        rescale.RescaleSlope, rescale.RescaleIntercept = 1, intercept
        voi.WindowCenter, voi.WindowWidth = 40, 80
        item.PixelValueTransformationSequence = [rescale]
        item.FrameVOILUTSequence = [voi]
        return item

    encoded = file(
        np.stack([RAMP, RAMP + 100]),
        SharedFunctionalGroupsSequence=[group(0)],
        PerFrameFunctionalGroupsSequence=[group(0), group(-100)],
    )
    first, second = decode_dicom_frames(encoded, name="a.dcm")
    np.testing.assert_array_equal(first, second)
    expected = decode_dicom(file(RAMP), name="a.dcm", windows=[Window(40, 80)])
    np.testing.assert_array_equal(first, expected)


@pytest.mark.parametrize(
    "name", ["examples_rgb_color.dcm", "examples_ybr_color.dcm", "SC_rgb_jpeg_dcmtk.dcm",
             "SC_ybr_full_422_uncompressed.dcm", "SC_rgb_rle.dcm"],
)  # fmt: skip
def test_colour_is_pydicoms_rgb(name):
    encoded = bundled(name)
    expected = pixel_array(io.BytesIO(encoded), index=0)
    frame = 0 if frame_count(encoded, name=name) > 1 else None
    np.testing.assert_array_equal(decode_dicom(encoded, name=name, frame=frame), expected)


def test_a_palette_is_looked_up():
    dataset = pydicom.dcmread(io.BytesIO(bundled("examples_palette.dcm")))
    expected = pydicom.pixels.apply_color_lut(pixel_array(dataset), dataset) >> 8
    image = decode_dicom(bundled("examples_palette.dcm"), name="p.dcm")
    np.testing.assert_array_equal(image, expected)


def test_colour_that_is_grey_has_one_channel():
    pixels = np.repeat(np.arange(16, dtype=np.uint8).reshape(4, 4, 1), 3, axis=-1)
    np.testing.assert_array_equal(decode_dicom(file(pixels), name="a.dcm"), pixels[..., :1])


def test_real_radiographs_of_both_polarities_are_inverses(shared_data):
    images = [
        decode_dicom(path.read_bytes(), name=path.name)
        for path in sorted((shared_data / "cxr_dicom").iterdir())
    ]
    assert [image.shape for image in images] == [(1024, 1024, 1)] * 2
    np.testing.assert_array_equal(images[0], 255 - images[1])


def refused(encoded, message, **options):
    with pytest.raises(DataError, match=message) as caught:
        decode_dicom(encoded, name="folder/a.dcm", **options)
    sentence = str(caught.value)
    assert sentence.startswith("folder/a.dcm ")
    assert caught.value.__cause__ is None
    return sentence


def test_files_that_are_no_images_are_refused_in_a_sentence():
    whole = file(RAMP)
    refused(b"", "is empty")
    refused(b"\x89PNG" + b"\0" * 500, "is no DICOM file")
    refused(bundled("rtplan.dcm"), "is DICOM without pixel data")
    refused(file(RAMP, PhotometricInterpretation="HSV"), "a colour space that cannot be read")
    refused(file(RAMP, Rows=60000, Columns=60000), "claims 60000 x 60000 pixels")
    refused(file(RAMP, Rows=0), "claims 64 x 0 pixels")
    refused(file(RAMP, NumberOfFrames=-2), "claims -2 frames")
    refused(file(np.zeros((4, 4, 3), np.uint8) + np.uint8([1, 2, 3])), "is a colour image",
            windows=[Window(40, 80)])  # fmt: skip
    for length in range(132, len(whole) - 1, 97):
        refused(whole[:length], "cut short or damaged|without pixel data")


def test_a_truncated_jpeg_inside_is_refused(shared_data):
    path = sorted((shared_data / "cxr_dicom").iterdir())[0]
    whole = path.read_bytes()
    refused(whole[: len(whole) // 2], "cut short or damaged|without pixel data")


def test_a_compression_without_its_decoder_names_the_extra(monkeypatch):
    class Missing:
        is_available = False

    monkeypatch.setattr(dicom, "get_decoder", lambda syntax: Missing())
    message = r"compressed as JPEG Baseline \(Process 1\).*pip install 'radimagenet-jax\[dicom\]'"
    refused(bundled("SC_rgb_jpeg_dcmtk.dcm"), message)


def test_a_video_is_refused():
    dataset = pydicom.dcmread(io.BytesIO(bundled("SC_rgb_jpeg_dcmtk.dcm")))
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.102"
    refused(written(dataset), r"stored as MPEG-4.*convert it")


@pytest.mark.parametrize("name", ["JPEG2000.dcm", "MR_small_RLE.dcm", "MR_small_expb.dcm",
                                  "image_dfl.dcm", "ExplVR_BigEnd.dcm"])  # fmt: skip
def test_other_encodings_of_the_values_are_read(name):
    encoded = bundled(name)
    stored = pixel_array(pydicom.dcmread(io.BytesIO(encoded)), index=0)
    image = decode_dicom(encoded, name=name, frame=0)
    assert image.shape[:2] == stored.shape[:2]
    assert image.max() > image.min()


def test_no_message_and_no_log_line_names_the_patient(caplog, capsys, recwarn):
    caplog.set_level(logging.DEBUG)
    broken = file(RAMP, PatientBirthDate="19000101").replace(b"19000101", b"Doe^Jane")
    decode_dicom(broken, name="a.dcm")
    for length in range(140, len(broken), 211):
        with pytest.raises(DataError) as caught:
            decode_dicom(broken[:length], name="a.dcm")
        assert "Doe" not in str(caught.value)
        assert "secret" not in str(caught.value)
    printed = capsys.readouterr()
    logged = [record.getMessage() for record in caplog.records]
    warned = [str(warning.message) for warning in recwarn.list]
    text = " ".join([printed.out, printed.err, *logged, *warned])
    assert "Doe" not in text
    assert "secret" not in text


def test_what_pydicom_says_of_odd_files_reaches_no_terminal():
    # Excess bytes behind the pixels, and another encoding than is stated.
    paths = [
        get_testdata_file(name, download=False)
        for name in ("MR_small_padded.dcm", "SC_rgb_jpeg.dcm")
    ]
    for path in paths:
        with pytest.warns(UserWarning, match="excess padding|found implicit VR"):
            _ = pydicom.dcmread(path).pixel_array
    # In a process of its own: pytest has filters and handlers of its own.
    program = (
        "import sys, pathlib\n"
        "from radimagenet_jax.data.dicom import decode_dicom\n"
        "for path in map(pathlib.Path, sys.argv[1:]):\n"
        "    decode_dicom(path.read_bytes(), name=path.name)\n"
    )
    said = subprocess.run(
        [sys.executable, "-W", "always", "-c", program, *paths],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (said.stdout, said.stderr) == ("", "")


def patient_pseudonym(encoded, *, name, salt):
    patient = read_header(encoded, name=name).patient
    return pseudonym(patient, salt) if patient else ""


def test_a_pseudonym_depends_on_patient_and_salt_and_tells_neither():
    one = patient_pseudonym(file(RAMP), name="a.dcm", salt="x")
    assert one == patient_pseudonym(file(RAMP[:32]), name="b.dcm", salt="x")
    assert one != patient_pseudonym(file(RAMP), name="a.dcm", salt="y")
    assert one != patient_pseudonym(file(RAMP, PatientID="other"), name="a.dcm", salt="x")
    assert "4711" not in one
    assert len(one) == 16
    assert patient_pseudonym(file(RAMP, PatientID=""), name="a.dcm", salt="x") == ""


# The first ends within an element, behind the preamble, the mark and the group's length.
@pytest.mark.parametrize("beginning", [128 + 4 + 12 + 8, 2**16])
def test_the_header_of_a_file_is_read_from_its_beginning_or_from_all_of_it(tmp_path, beginning):
    path = tmp_path / "a.dcm"
    path.write_bytes(file(RAMP))
    found = header_of(SourceFile.at(path), beginning=beginning)
    assert found == read_header(path.read_bytes(), name="a.dcm")
    assert found.patient == "4711-secret"


def test_a_patient_behind_a_long_element_is_found_wherever_the_beginning_ends(tmp_path):
    path = tmp_path / "long.dcm"
    path.write_bytes(file(RAMP, DerivationDescription="x" * 1000))
    found = {
        header_of(SourceFile.at(path), beginning=size).patient for size in range(300, 2500, 50)
    }
    assert found == {"4711-secret"}


class Counted(io.BytesIO):
    """A file that notes how far it was read before it was closed."""

    def close(self):
        self.read_until = self.tell()
        super().close()


@pytest.mark.parametrize("patient", ["", "4711"])
def test_of_a_file_whose_beginning_holds_its_header_no_more_is_read(patient, tmp_path, monkeypatch):
    encoded = file(RAMP, PatientID=patient)
    stream = Counted(encoded)
    monkeypatch.setattr(SourceFile, "open", lambda self: stream)
    header = header_of(SourceFile.at(tmp_path / "a.dcm"), beginning=2048)
    assert header == read_header(encoded, name="a.dcm")
    assert stream.read_until == 2048


def test_wherever_the_beginning_ends_the_header_is_that_of_the_whole_file(tmp_path):
    path = tmp_path / "a.dcm"
    path.write_bytes(file(RAMP.astype(np.uint16) % 4096, BitsStored=12, HighBit=11))
    whole = read_header(path.read_bytes(), name="a.dcm")
    sizes = range(200, 1000, 10)
    assert {header_of(SourceFile.at(path), beginning=size) for size in sizes} == {whole}


def test_what_has_no_header_gives_none(tmp_path):
    path = tmp_path / "a.dcm"
    assert header_of(SourceFile.at(path), beginning=1000) is None
    for content in (b"", b"\x89PNG", file(RAMP)[: 128 + 4 + 12 + 8]):
        path.write_bytes(content)
        assert header_of(SourceFile.at(path), beginning=1000) is None


def fresh(encoded):
    """A file's elements, to be written in any encoding."""
    dataset = Dataset()
    for element in pydicom.dcmread(io.BytesIO(encoded)):
        dataset.add(element)
    return dataset


def without_mark(encoded, *, implicit, little):
    """The data set alone, as some consoles write it."""
    dataset = fresh(encoded)
    if not little:
        swapped = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
        dataset["PixelData"] = pydicom.DataElement("PixelData", "OW", swapped)
    stream = io.BytesIO()
    dataset.save_as(stream, implicit_vr=implicit, little_endian=little, enforce_file_format=False)
    return stream.getvalue()


@pytest.mark.parametrize(("implicit", "little"), [(True, True), (False, True), (False, False)])
def test_a_data_set_without_the_mark_is_read(implicit, little):
    pixels = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    marked = file(pixels, WindowCenter=2000, WindowWidth=3000)
    bare = without_mark(marked, implicit=implicit, little=little)
    assert is_dicom(bare)
    assert is_dicom(bare[:200])
    np.testing.assert_array_equal(decode_dicom(bare, name="a"), decode_dicom(marked, name="a.dcm"))
    assert patient_pseudonym(bare, name="a", salt="x") == patient_pseudonym(
        marked, name="a.dcm", salt="x"
    )


@pytest.mark.parametrize(
    "content",
    [b"", b"\x08\0", b"\x89PNG" * 20, b"II*\0\x08\0\0\0" * 9, b"\x08\0" * 200, b"a,b\n" * 50],
)
def test_what_is_no_data_set_is_not_taken_for_one(content):
    assert not is_dicom(content)


SYNTAXES = {
    "explicit little": "1.2.840.10008.1.2.1",
    "implicit little": "1.2.840.10008.1.2",
    "explicit big": "1.2.840.10008.1.2.2",
}


@pytest.mark.parametrize("keyword", ["ModalityLUTSequence", "VOILUTSequence"])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("vr", ["US", "OW"])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_tables_are_read_in_every_encoding(syntax, vr, bits, keyword):
    order = ">" if "big" in syntax else "<"
    table = np.round(np.linspace(0, 1, 256) ** 3 * (2**bits - 1)).astype(f"{order}u2")
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [256, 0, bits])
    item.add_new("LUTData", vr, table.tobytes() if vr == "OW" else table.tolist())
    dataset = fresh(file(np.arange(256, dtype=np.uint16).reshape(16, 16)))
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = SYNTAXES[syntax]
    pixels = np.arange(256, dtype=f"{order}u2").tobytes()
    dataset["PixelData"] = pydicom.DataElement("PixelData", "OW", pixels)
    setattr(dataset, keyword, [item])
    if keyword == "ModalityLUTSequence":
        item.ModalityLUTType = "US"
        dataset.WindowCenter, dataset.WindowWidth = 2 ** (bits - 1), 2**bits
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    image = decode_dicom(stream.getvalue(), name="a.dcm").ravel()
    np.testing.assert_array_equal(image, to_bytes(table / (2**bits - 1)))


def test_empty_tags_of_the_rescale_and_fractional_windows_are_read():
    plain = decode_dicom(file(RAMP, WindowCenter=40, WindowWidth=400), name="a.dcm")
    empty = {"RescaleSlope": None, "RescaleIntercept": None}
    image = decode_dicom(file(RAMP, WindowCenter=40, WindowWidth=400, **empty), name="a.dcm")
    np.testing.assert_array_equal(image, plain)
    fractions = np.linspace(0, 10_000, 4096).astype(np.uint16).reshape(64, 64)
    tags = {"RescaleSlope": "0.0001", "RescaleIntercept": 0}
    image = decode_dicom(
        file(fractions, WindowCenter="0.5", WindowWidth="0.8", **tags), name="a.dcm"
    )
    expected = to_bytes(np.clip((fractions * 1e-4 - 0.5) / 0.8 + 0.5, 0, 1))
    np.testing.assert_array_equal(image[..., 0], expected)


@pytest.mark.parametrize(
    ("tags", "named"),
    [
        ({"WindowWidth": 0}, r"WindowWidth \(0028,1051\)"),
        ({"WindowWidth": -400}, r"WindowWidth \(0028,1051\)"),
        ({"RescaleSlope": 0}, r"RescaleSlope \(0028,1053\)"),
        ({"VOILUTFunction": "CUBIC"}, r"VOILUTFunction \(0028,1056\)"),
    ],
)
def test_senseless_display_tags_are_named(tags, named):
    refused(file(RAMP, **{"WindowCenter": 40, "WindowWidth": 80, **tags}), named)


def test_the_presentation_shape_inverse_turns_the_shades_over_once():
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    plain = decode_dicom(file(pixels), name="a.dcm")
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        tags = {"PhotometricInterpretation": photometric, "PresentationLUTShape": "INVERSE"}
        np.testing.assert_array_equal(decode_dicom(file(pixels, **tags), name="a"), 255 - plain)


def test_values_wrapped_at_12_bits_are_made_negative_again_on_request():
    hounsfield = np.linspace(-1000, 1500, 4096).astype(np.int16).reshape(64, 64)
    wrapped = np.where(hounsfield < 0, hounsfield + 4096, hounsfield).astype(np.uint16)
    encoded = file(wrapped, BitsStored=12, HighBit=11, RescaleSlope=1, RescaleIntercept=0)
    assert dicom.read_header(encoded, name="a.dcm").may_wrap
    windows = [Window(40, 80)]
    expected = decode_dicom(file(hounsfield), name="a.dcm", windows=windows)
    again = decode_dicom(encoded, name="a.dcm", windows=windows, unwrap=True)
    np.testing.assert_array_equal(again, expected)
    assert (decode_dicom(encoded, name="a.dcm", windows=windows) != expected).any()
    # A file that has an intercept for its negative values is left as it is.
    usual = file(wrapped, BitsStored=12, HighBit=11, RescaleSlope=1, RescaleIntercept=-1024)
    np.testing.assert_array_equal(
        decode_dicom(usual, name="a.dcm", unwrap=True), decode_dicom(usual, name="a.dcm")
    )


def test_float_pixels_are_read():
    values = np.linspace(-2, 3, 64, dtype=np.float32).reshape(8, 8)
    dataset = pydicom.dcmread(io.BytesIO(file(np.zeros((8, 8), np.uint16))))
    del dataset.PixelData, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation
    dataset.BitsAllocated = 32
    dataset.FloatPixelData = values.tobytes()
    image = decode_dicom(written(dataset), name="a.dcm")[..., 0]
    np.testing.assert_array_equal(image, to_bytes((values.astype(float) + 2) / 5))


def test_a_deflated_bomb_is_refused_before_it_is_inflated(monkeypatch):
    monkeypatch.setattr(dicom, "_MAX_INFLATED", 10_000)
    refused(bundled("image_dfl.dcm"), "would expand to more than 10,000 bytes")


def test_a_jpeg_of_12_bits_is_named_for_what_it_is():
    sentence = refused(bundled("JPEG-lossy.dcm"), "JPEG with 12 bits a value")
    assert "install" not in sentence


def shipped():
    """All files that pydicom ships, and pydicom-data where it is installed."""
    import importlib.util

    roots = [Path(pydicom.data.__file__).parent]
    if spec := importlib.util.find_spec("data_store"):
        roots.append(Path(spec.origin).parent)
    for root in roots:
        for path in sorted(root.rglob("*")):
            if path.is_file() and path.suffix not in (
                ".py",
                ".pyc",
                ".json",
                ".txt",
                ".md",
                ".zip",
            ):
                yield path


def test_of_the_files_that_pydicom_ships_95_percent_are_read_and_the_others_named():
    import importlib.util

    has_extra = importlib.util.find_spec("gdcm") is not None
    read, not_read, uninstalled = 0, [], 0
    for path in shipped():
        encoded = path.read_bytes()
        try:
            decode_dicom(encoded, name=path.name, frame=0)
            read += 1
        except DataError as error:
            sentence = str(error)
            assert sentence.startswith(path.name), sentence
            if "without pixel data" in sentence or "is no DICOM file" in sentence:
                continue
            if "radimagenet-jax[dicom]" in sentence:
                uninstalled += 1
                continue
            # Two bytes that are called pixels, without a size.
            if "its Rows is missing" not in sentence:
                not_read.append(sentence)
    assert read > 80  # of pydicom's own; pydicom-data, where it is installed, doubles them
    assert not (has_extra and uninstalled)
    assert read >= 0.95 * (read + len(not_read)), not_read
