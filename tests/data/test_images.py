"""Laws of decoding, resizing and checking, with Pillow as the reference."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from radimagenet_jax.data.images import (
    check_image,
    decode,
    encode_png,
    nearest_indices,
    resize_nearest,
)
from radimagenet_jax.errors import DataError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (33, 47, 3), dtype=np.uint8)
RGBA = RNG.integers(0, 256, (33, 47, 4), dtype=np.uint8)


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def as_pillow_reads(encoded: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))


def png_16_bit(colour_type: int, channels: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    width, height = 5, 4
    rows = b"".join(b"\0" + RNG.bytes(2 * channels * width) for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def rotated_by_tag() -> Image.Exif:
    exif = Image.Exif()
    exif[0x112] = 6
    return exif


FORMS = {
    "rgb": encode(Image.fromarray(RGB)),
    "transparent": encode(Image.fromarray(RGBA)),
    "grey": encode(Image.fromarray(RGB[..., 0])),
    "grey with alpha": encode(Image.fromarray(RGBA).convert("LA")),
    "palette": encode(Image.fromarray(RGB).quantize(60)),
    "palette with transparency": encode(Image.fromarray(RGB).quantize(60), transparency=3),
    "palette of 4 bits": encode(Image.fromarray(RGB).quantize(10), bits=4),
    "one bit": encode(Image.fromarray(RGB[..., 0]).convert("1")),
    "png with orientation": encode(Image.fromarray(RGB), exif=rotated_by_tag()),
    "jpeg": encode(Image.fromarray(RGB), "JPEG"),
    "jpeg with orientation": encode(Image.fromarray(RGB), "JPEG", exif=rotated_by_tag()),
    "grey jpeg": encode(Image.fromarray(RGB[..., 0]), "JPEG"),
    "progressive jpeg": encode(Image.fromarray(RGB), "JPEG", progressive=True),
    "jpeg, full chroma": encode(Image.fromarray(RGB), "JPEG", subsampling=0),
    "jpeg, halved chroma": encode(Image.fromarray(RGB), "JPEG", subsampling=1),
    "cmyk jpeg": encode(Image.fromarray(RGB).convert("CMYK"), "JPEG"),
    "bmp": encode(Image.fromarray(RGB), "BMP"),
    "tiff": encode(Image.fromarray(RGB), "TIFF"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_8_bit_image_is_accepted_and_decodes_as_pillow_reads_it(form):
    check_image(FORMS[form], name=form)
    expected = as_pillow_reads(FORMS[form])
    image = decode(FORMS[form], name=form)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, expected[..., : image.shape[-1]])
    grey = (expected == expected[..., :1]).all()
    assert image.shape[-1] == (1 if grey else 3)


@pytest.mark.parametrize("folder", ["covid_ct", "Dataset_BUSI_with_GT"])
def test_real_images_decode_as_pillow_reads_them(shared_data, folder):
    every = sorted(p for p in (shared_data / folder).rglob("*") if p.suffix in {".png", ".jpg"})
    assert len(every) > 700
    # A stride that is prime to the alternation of names keeps classes and formats mixed.
    for path in every[::13]:
        encoded = path.read_bytes()
        check_image(encoded, name=path.name)
        image = decode(encoded, name=path.name)
        np.testing.assert_array_equal(
            np.broadcast_to(image, (*image.shape[:2], 3)), as_pillow_reads(encoded), path.name
        )


@pytest.mark.slow
def test_all_real_images_decode_and_resize_as_pillow_does(shared_data):
    count = 0
    for path in sorted(shared_data.rglob("*")):
        if path.suffix not in {".png", ".jpg"}:
            continue
        encoded = path.read_bytes()
        expected = as_pillow_reads(encoded)
        image = np.broadcast_to(decode(encoded, name=path.name), expected.shape)
        np.testing.assert_array_equal(image, expected, path.name)
        resized = Image.fromarray(expected).resize((224, 224), Image.NEAREST)
        np.testing.assert_array_equal(resize_nearest(image, 224), np.asarray(resized), path.name)
        count += 1
    assert count > 1500


@pytest.mark.parametrize("size", [1, 64, 96, 224, 256, 299])
def test_resizing_equals_pillow_for_every_length_of_a_side(size):
    # Rows and columns are independent, so a ramp along one axis shows every index of it.
    for length in range(1, 1300):
        ramp = np.arange(length, dtype=np.int32)
        expected = np.asarray(Image.fromarray(ramp[None]).resize((size, 1), Image.NEAREST))[0]
        np.testing.assert_array_equal(nearest_indices(length, size), expected, f"{length}")


@pytest.mark.parametrize("shape", [(33, 47), (300, 500), (701, 113), (224, 224)])
def test_resizing_equals_pillow_in_two_dimensions_and_colour(shape):
    image = RNG.integers(0, 256, (*shape, 3), dtype=np.uint8)
    expected = Image.fromarray(image).resize((224, 224), Image.NEAREST)
    resized = resize_nearest(image, 224)
    np.testing.assert_array_equal(resized, np.asarray(expected))
    assert resized.flags.c_contiguous


@pytest.mark.parametrize("form", ["rgb", "grey", "jpeg", "grey jpeg", "tiff", "cmyk jpeg"])
@pytest.mark.parametrize("kept", [0.3, 0.7, 0.95])
def test_a_truncated_image_is_refused_by_name(form, kept):
    encoded = FORMS[form]
    with pytest.raises(DataError, match=r"scan_7\.png .*download or copy it again"):
        check_image(encoded[: int(kept * len(encoded))], name="scan_7.png")


@pytest.mark.parametrize("missing", [1, 12])
def test_a_png_without_its_last_bytes_is_refused(missing):
    with pytest.raises(DataError, match="cut short or damaged"):
        check_image(FORMS["rgb"][:-missing], name="scan_7.png")


def test_a_png_with_a_flipped_bit_is_refused():
    encoded = bytearray(FORMS["rgb"])
    encoded[len(encoded) // 2] ^= 0x10
    with pytest.raises(DataError, match="cut short or damaged"):
        check_image(bytes(encoded), name="scan_7.png")


@pytest.mark.parametrize("content", [b"GIF", b"<html>404</html>" * 20, b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_is_refused(content):
    with pytest.raises(DataError, match=r"page\.png is not an image"):
        check_image(content, name="page.png")


UNDOCUMENTED = ("GIF", "PPM", "TGA", "PCX", "SGI", "WEBP", "ICO", "JPEG2000", "DDS", "MSP")


@pytest.mark.parametrize("kind", UNDOCUMENTED)
def test_formats_that_nobody_promised_are_refused_although_pillow_reads_them(kind):
    image = Image.fromarray(RGB).convert("1" if kind == "MSP" else "RGB")
    content = encode(image, kind)
    for read in (check_image, decode):
        with pytest.raises(DataError, match="PNG, JPEG, TIFF, BMP or DICOM is expected"):
            read(content, name="image.png")


def test_a_gif_is_read_as_a_mask_alone():
    content = encode(Image.fromarray(RGB[..., 0]), "GIF")
    np.testing.assert_array_equal(
        check_image(content, name="mask.gif", is_mask=True),
        as_pillow_reads(content)[..., :1],
    )


def tiff_of(pages: int) -> bytes:
    images = [Image.fromarray(np.full((5, 7, 3), 10 * page, np.uint8)) for page in range(pages)]
    return encode(images[0], "TIFF", save_all=True, append_images=images[1:])


def test_pages_of_a_tiff_are_chosen_by_number_or_refused():
    content = tiff_of(3)
    for page in range(3):
        assert (check_image(content, name="a.tif", frame=page) == 10 * page).all()
    with pytest.raises(DataError, match=r"a\.tif has 3 frames; choose one"):
        check_image(content, name="a.tif")
    with pytest.raises(DataError, match=r"a\.tif has no frame 3; choose one of 0 to 2"):
        check_image(content, name="a.tif", frame=3)
    with pytest.raises(DataError, match=r"a\.png has no frame 1"):
        check_image(FORMS["rgb"], name="a.png", frame=1)


def test_a_size_beyond_all_measure_is_refused_before_it_is_decoded():
    for width, height in ((100_000, 100_000), (2**31 - 1, 1), (0xFFFF, 0xFFFF)):
        bomb = bytearray(FORMS["grey"])
        bomb[16:24] = struct.pack(">II", width, height)
        with pytest.raises(DataError, match=r"bomb\.png"):
            decode(bytes(bomb), name="bomb.png")


def test_an_empty_file_is_refused():
    with pytest.raises(DataError, match=r"page\.png is empty"):
        check_image(b"", name="page.png")


@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_16_bit_images_are_refused(colour_type, channels):
    with pytest.raises(DataError, match=r"deep\.png has more than 8 bits"):
        check_image(png_16_bit(colour_type, channels), name="deep.png")


def test_an_image_that_claims_to_be_enormous_is_refused():
    encoded = bytearray(FORMS["grey"])
    for side in (12_000, 40_000):
        encoded[16:24] = struct.pack(">II", side, side)
        encoded[29:33] = struct.pack(">I", zlib.crc32(encoded[12:29]))
        with pytest.raises(DataError, match=r"bomb\.png .*scale it down"):
            check_image(bytes(encoded), name="bomb.png")


def test_decoding_damaged_bytes_is_an_error_that_names_the_image():
    for content in (FORMS["jpeg"][:100], FORMS["rgb"][:60], b"no image", b""):
        with pytest.raises(DataError, match="train/17"):
            decode(content, name="train/17")


@pytest.mark.parametrize("shape", [(5, 3), (9, 3, 1), (4, 6), (33, 47, 3)])
def test_what_is_encoded_as_png_is_decoded_as_it_was(shape):
    image = np.resize(RGB, shape)
    encoded = encode_png(image)
    channels = 3 if shape[-1] == 3 and len(shape) == 3 else 1
    assert np.array_equal(decode(encoded, name="it"), image.reshape(*shape[:2], channels))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(encoded))), np.squeeze(image))
