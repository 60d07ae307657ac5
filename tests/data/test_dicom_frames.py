"""Frames that pydicom does not decode become what it makes of the same values stored plainly."""

import io

import numpy as np
import pydicom
import pytest
from pydicom.pixels import get_encoder
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from radimagenet_jax.data.dicom import decode_dicom
from radimagenet_jax.errors import DataError
from tests.data.test_dicom import RAMP, bundled, file, refused, written


def test_deflated_frames_are_inflated():
    import zlib

    frames = np.stack([RAMP, RAMP[::-1]])
    dataset = pydicom.dcmread(io.BytesIO(file(frames)))
    parts = []
    for frame in frames:
        deflater = zlib.compressobj(wbits=-15)
        part = deflater.compress(frame.tobytes()) + deflater.flush()
        parts.append(part + b"\0" * (len(part) % 2))
    dataset.PixelData = pydicom.encaps.encapsulate(parts)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    # pydicom does not know the syntax: another one's name, as long, is overwritten.
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEGBaseline8Bit
    baseline, deflated = b"1.2.840.10008.1.2.4.50", b"1.2.840.10008.1.2.8.1\0"
    encoded = written(dataset).replace(baseline, deflated)
    for index in range(2):
        np.testing.assert_array_equal(
            decode_dicom(encoded, name="a.dcm", frame=index),
            decode_dicom(file(frames), name="a.dcm", frame=index),
        )


def single_bits(frames, syntax):
    """A file of (N, H, W) single bits, each frame of a whole number of bytes in RLE."""
    count, rows, columns = frames.shape
    dataset = pydicom.dcmread(io.BytesIO(file(np.zeros((rows, columns), np.uint8))))
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 1, 1, 0
    dataset.NumberOfFrames = count
    dataset.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRLittleEndian:
        packed = np.packbits(frames.reshape(-1), bitorder="little").tobytes()
        dataset.PixelData = packed + b"\0" * (len(packed) % 2)
        return written(dataset)
    encoder = get_encoder(RLELossless)
    parts = []
    for frame in frames:
        packed = np.packbits(frame.reshape(-1), bitorder="little")
        parts.append(
            encoder.encode(
                packed.tobytes(), encoding_plugin="pydicom", rows=1, columns=len(packed),
                samples_per_pixel=1, bits_allocated=8, bits_stored=8, pixel_representation=0,
                number_of_frames=1, photometric_interpretation="MONOCHROME2",
            )
        )  # fmt: skip
    dataset.PixelData = pydicom.encaps.encapsulate(parts)
    dataset["PixelData"].is_undefined_length = True
    return written(dataset)


@pytest.mark.parametrize("shape", [(3, 16, 24), (3, 7, 9), (1, 5, 5), (2, 1, 300)])
def test_single_bits_are_what_pydicom_reads_whatever_their_frames_are_aligned_to(shape):
    """Pydicom reads all frames at once, and none in RLE: its values of plain ones stand in."""
    frames = (np.random.default_rng(4).random(shape) < 0.3).astype(np.uint8)
    plain = single_bits(frames, ExplicitVRLittleEndian)
    stored = pydicom.dcmread(io.BytesIO(plain)).pixel_array.reshape(shape)
    np.testing.assert_array_equal(stored, frames)
    for encoded in (plain, single_bits(frames, RLELossless)):
        for index, expected in enumerate(stored):
            image = decode_dicom(encoded, name="a.dcm", frame=index)
            np.testing.assert_array_equal(image[..., 0], 255 * expected)


@pytest.mark.parametrize("name", ["liver_1frame.dcm", "liver_expb_1frame.dcm"])
def test_segmentations_of_single_bits_are_what_pydicom_reads(name):
    stored = pydicom.dcmread(io.BytesIO(bundled(name))).pixel_array
    image = decode_dicom(bundled(name), name=name)
    np.testing.assert_array_equal(image[..., 0], 255 * stored)


def test_single_bits_that_end_too_early_are_refused():
    dataset = pydicom.dcmread(
        io.BytesIO(
            single_bits(np.eye(7, 9)[None].repeat(2, 0).astype(np.uint8), ExplicitVRLittleEndian)
        )
    )
    dataset.PixelData = dataset.PixelData[:14]
    assert decode_dicom(written(dataset), name="a.dcm", frame=0).shape == (7, 9, 1)
    with pytest.raises(DataError, match="cut short or damaged"):
        decode_dicom(written(dataset), name="a.dcm", frame=1)


def test_single_bits_in_rle_that_are_damaged_are_refused():
    frames = np.random.default_rng(5).integers(0, 2, (1, 40, 40), np.uint8)
    dataset = pydicom.dcmread(io.BytesIO(single_bits(frames, RLELossless)))
    whole = pydicom.encaps.get_frame(dataset.PixelData, 0, number_of_frames=1)
    for damaged in (b"\0", whole[:4], whole[:70], whole[:100], b"\2" + whole[1:]):
        dataset.PixelData = pydicom.encaps.encapsulate([damaged + b"\0" * (len(damaged) % 2)])
        dataset["PixelData"].is_undefined_length = True
        refused(written(dataset), "cut short or damaged")
