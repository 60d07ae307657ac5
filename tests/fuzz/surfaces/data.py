"""What people bring: pictures, DICOM files and tables of their own images."""

import functools
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
from PIL import Image
from pydicom.data import get_testdata_file

from radimagenet_jax.data import dicom, images
from radimagenet_jax.errors import DataError
from tests.dicom_files import dicom_file
from tests.fuzz import harness

# Kinds that Pillow writes and reads, and that nobody promised.
_OTHERS = ("GIF", "PPM", "TGA", "PCX", "SGI", "WEBP", "ICO", "JPEG2000", "DDS", "PDF", "EPS")
_DICOM = (
    *("CT_small.dcm", "MR_small.dcm", "MR_small_RLE.dcm", "MR_small_expb.dcm", "JPEG2000.dcm"),
    *("image_dfl.dcm", "ExplVR_BigEnd.dcm", "SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_rle.dcm"),
    *("examples_palette.dcm", "examples_overlay.dcm", "SC_rgb_gdcm_KY.dcm", "rtplan.dcm"),
    *("MR_small_jpeg_ls_lossless.dcm", "examples_jpeg2k.dcm", "liver_1frame.dcm", "reportsi.dcm"),
    *("emri_small_jpeg_2k_lossless.dcm", "JPGExtended.dcm", "SC_rgb_jpeg_gdcm.dcm", "no_meta.dcm"),
)
_ABSURD: tuple[Any, ...] = (
    *(0, 1, 2, 3, 7, 8, 12, 16, 17, 32, 64, 255, 65535),
    *("", "x", "-1", "0", "1e308", "1e-308", "nan", "inf", [1, 2, 3], [0], None),
)
_EDITED = (
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames"),
    *("WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept", "VOILUTFunction"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "PatientID", "SpecificCharacterSet"),
)
_TABLE = "filename,label,patient,split,frame,window_center,window_width\n"


@functools.cache
def _pictures() -> dict[str, bytes]:
    rng = np.random.default_rng(1)
    pixels = cv2.blur(rng.integers(0, 256, (48, 40, 3), dtype=np.uint8), (3, 3))
    colour, grey = Image.fromarray(pixels), Image.fromarray(pixels[..., 0])
    made = {}

    def add(kind: str, image: Image.Image, name: str = "", **options: Any) -> None:
        stream = io.BytesIO()
        image.save(stream, kind, **options)
        made[name or kind] = stream.getvalue()

    for kind in ("PNG", "JPEG", "BMP", "TIFF"):
        add(kind, colour)
        add(kind, grey, f"grey {kind}")
    add("PNG", colour.quantize(20), "palette")
    add("PNG", grey.convert("1"), "one bit")
    add("JPEG", colour, "progressive", progressive=True)
    add("JPEG", colour.convert("CMYK"), "cmyk")
    for compression in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg", "group4"):
        image = grey.convert("1") if compression == "group4" else colour
        add("TIFF", image, compression, compression=compression)
    add("TIFF", grey, "pages", save_all=True, append_images=[grey, colour, grey.convert("1")])
    for kind in _OTHERS:
        add(kind, colour)
    return made


def _make_picture(rng: np.random.Generator, folder: Path) -> Any:
    pictures = _pictures()
    name = str(rng.choice(sorted(pictures)))
    content = pictures[name]
    kind = int(rng.integers(8))
    if kind == 0:
        content = _png_bomb(rng)
    elif kind == 1 and content.startswith(b"II*"):
        content = _edited_tiff(rng, content)
    elif kind == 2:
        content = content[:8] + rng.bytes(int(rng.integers(2000)))
    elif kind > 2:
        content = harness.mutated(rng, content)
    path = folder / "image"
    path.write_bytes(content)
    frame = None if rng.integers(3) else int(rng.integers(5))
    return str(path), name in _OTHERS and kind > 2, frame


def _png_bomb(rng: np.random.Generator) -> bytes:
    """A PNG of a huge size, declared alone or with content that inflates to it."""
    side = int(rng.choice([5000, 12_000, 100_000, 2**31 - 1]))

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", side, side, 8, int(rng.choice([0, 2, 6])), 0, 0, 0)
    rows = bytes(int(rng.choice([0, 1000, 30_000_000])))
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _edited_tiff(rng: np.random.Generator, content: bytes) -> bytes:
    """One entry of the first directory says something else, or the chain of pages is a circle."""
    data = bytearray(content)
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    end = start + 2 + 12 * count
    if rng.integers(3) == 0:
        struct.pack_into("<I", data, end, start)
        return bytes(data)
    entry = start + 2 + 12 * int(rng.integers(count))
    value = int(rng.choice([0, 1, 255, 65535, 2**31, 2**32 - 1]))
    struct.pack_into("<I", data, entry + int(rng.choice([4, 8])), value)
    return bytes(data)


def _read_picture(made: Any) -> np.ndarray:
    path, _, frame = made
    return images.check_image(Path(path).read_bytes(), name="image", frame=frame)


def _judge_picture(made: Any, result: np.ndarray) -> str | None:
    content = Path(made[0]).read_bytes()
    known = (b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"BM")
    if not content.startswith(known):
        return "a format that nobody promised was read"
    if result.dtype != np.uint8 or result.ndim != 3 or result.shape[2] not in (1, 3):
        return f"the image is {result.dtype} {result.shape}"
    # PNG has check sums: what is taken is what was written, unless bytes came behind its end.
    if content.startswith(b"\x89PNG"):
        again = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
        if not np.array_equal(np.broadcast_to(result, again.shape), again):
            return "the image differs from Pillow's"
    return None


@functools.cache
def _files() -> dict[str, bytes]:
    found = {name: get_testdata_file(name, download=False) for name in _DICOM}
    files = {name: Path(path).read_bytes() for name, path in found.items() if path}
    ramp = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    plain = dicom_file(ramp, "p1", WindowCenter=40, WindowWidth=80)
    marked = pydicom.dcmread(io.BytesIO(plain))
    stream = io.BytesIO()
    del marked.file_meta
    marked.save_as(stream, implicit_vr=True, little_endian=True, enforce_file_format=False)
    return {**files, "plain": plain, "no mark": stream.getvalue()}


def _make_dicom(rng: np.random.Generator, folder: Path) -> Any:
    files = _files()
    content = files[str(rng.choice(sorted(files)))]
    kind = int(rng.integers(6))
    if kind < 3:
        content = _edited_dicom(rng, content)
    if kind == 2:
        content = content[: int(rng.integers(len(content) + 1))]
    if kind > 2:
        content = harness.mutated(rng, content)
    path = folder / "image.dcm"
    path.write_bytes(content)
    frame = None if rng.integers(4) else int(rng.integers(4))
    return str(path), frame, not rng.integers(4)


def _edited_dicom(rng: np.random.Generator, content: bytes) -> bytes:
    """Elements with absurd values, tables without sense, or frames that are cut."""
    try:
        dataset = pydicom.dcmread(io.BytesIO(content), force=True)
        for _ in range(int(rng.integers(1, 4))):
            kind = int(rng.integers(8))
            if kind == 0 and "PixelData" in dataset:
                pixels = dataset.PixelData
                dataset["PixelData"]._value = harness.mutated(rng, pixels)
            elif kind == 1:
                keyword = str(rng.choice(["VOILUTSequence", "ModalityLUTSequence"]))
                item = pydicom.Dataset()
                item.LUTDescriptor = [int(n) for n in rng.choice([0, 1, 8, 16, 4096, 65535], 3)]
                item.add_new("LUTData", "OW", rng.bytes(int(rng.integers(0, 5000)) * 2))
                setattr(dataset, keyword, [item])
            else:
                keyword = str(rng.choice(_EDITED))
                value = _ABSURD[int(rng.integers(len(_ABSURD)))]
                setattr(dataset, keyword, value)
        stream = io.BytesIO()
        dataset.save_as(stream)
        return stream.getvalue()
    except Exception:
        # pydicom writes little of what is senseless; the bytes are mutated then.
        return harness.mutated(rng, content)


def _read_dicom(made: Any) -> Any:
    path, frame, given = made
    windows = [dicom.Window(40, 80)] if given else []
    content = Path(path).read_bytes()
    header = dicom.read_header(content, name="image.dcm")
    image = dicom.decode_dicom(content, name="image.dcm", frame=frame, windows=windows)
    return header, image


def _judge_dicom(made: Any, result: Any) -> str | None:
    _, image = result
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3):
        return f"the image is {image.dtype} {image.shape}"
    dataset = pydicom.dcmread(made[0], force=True)
    if image.shape[:2] != (dataset.Rows, dataset.Columns):
        return f"the image is {image.shape}, and its file says {dataset.Rows} x {dataset.Columns}"
    return None


_LABELS = (
    "no",
    "yes",
    "n\u200bo",
    "no ",
    "n\u00a0o",
    "é",
    "e\u0301",
    "y\x1b[31m",
    "=1+1",
    "\ufeffno",
)
_FRAMES = ("", "0", "1", "9" * 400, "-1", "1e3", "٣", "0x1", "nan")
_DELIMITERS = (",", ",", ",", ";", "\t", "|")


def _make_table(rng: np.random.Generator, folder: Path) -> Any:
    source = folder / "downloads" / "manual" / "image_csv" / "mine"
    source.mkdir(parents=True)
    rows = []
    for number in range(12):
        name = f"{number:02}.png"
        source.joinpath(name).write_bytes(_pictures()["grey PNG"])
        rows.append([name, ("no", "yes")[number % 2], f"p{number}", "", "", "", ""])
    splits = [["train", "val", "test"][i // 2 % 3] for i in range(12)]
    has_split = bool(rng.integers(2))
    for row, split in zip(rows, splits, strict=True):
        row[3] = split
    for _ in range(int(rng.integers(0, 5))):
        row = rows[int(rng.integers(12))]
        kind = int(rng.integers(5))
        if kind == 0:
            row[1] = str(rng.choice(_LABELS))
        elif kind == 1:
            row[4] = str(rng.choice(_FRAMES))
        elif kind == 2:
            row[2] = str(rng.choice(["nan", "", "0", "None", "unknown", "p\u200b1"]))
        elif kind == 3:
            row[5], row[6] = (str(one) for one in rng.choice(["", "40", "inf", "x", "0"], 2))
        else:
            row[int(rng.integers(7))] = harness.mutated_text(rng, "abcdef")
    delimiter = _DELIMITERS[int(rng.integers(len(_DELIMITERS)))]
    lines = [_TABLE.strip().split(","), *rows]
    if not has_split:
        lines = [line[:3] + line[4:] for line in lines]
    text = "\n".join(delimiter.join(line) for line in lines)
    if not rng.integers(3):
        text = harness.mutated_text(rng, text)
    content = text.encode("utf-16" if not rng.integers(20) else "utf-8", "surrogatepass")
    if not rng.integers(6):
        content = b"\xef\xbb\xbf" + content
    if not rng.integers(6):
        content = harness.mutated(rng, content)
    (source / "labels.csv").write_bytes(content)
    return str(folder)


def _prepare(made: str) -> Any:
    from radimagenet_jax.data import preparation

    try:
        built = preparation.prepare("image_csv/mine", made, on_progress=lambda done, total: None)
    except DataError as error:
        # A list of problems has a line for each, up to twenty: each is judged by itself.
        lines = str(error).splitlines()
        if all(map(harness.is_clear, lines)):
            raise DataError(lines[0]) from error
        raise
    names = built.info.features["label"].names
    read = built.as_data_source()
    keys = [row["key"].decode() for split in read for row in read[split]]
    return names, keys


def _judge_table(made: str, result: Any) -> str | None:
    import unicodedata

    names, keys = result
    seen = ["".join(c for c in name if c.isprintable() and not c.isspace()) for name in names]
    if len({unicodedata.normalize("NFC", one).lower() for one in seen}) < len(names):
        return f"labels that look alike are two: {names}"
    for text in [*names, *keys]:
        hidden = [c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs")]
        if hidden or unicodedata.normalize("NFC", text) != text:
            return f"a label or key that is not plain: {text!r}"
    if len(set(keys)) != len(keys):
        return "a key is there twice"
    return None


def _warm_images() -> None:
    stream = _pictures()
    images.check_image(stream["PNG"], name="warm")
    images.check_image(stream["TIFF"], name="warm")


def _warm_table() -> None:
    import tensorflow_datasets as tfds

    from tfds_builders.image_csv import image_csv_dataset_builder

    del tfds, image_csv_dataset_builder
    _pictures()


SURFACES = (
    harness.Surface("images", _make_picture, _read_picture, _judge_picture, warm=_warm_images),
    harness.Surface("dicom", _make_dicom, _read_dicom, _judge_dicom, warm=_files.__wrapped__),
    harness.Surface(
        "tables",
        _make_table,
        _prepare,
        _judge_table,
        outputs=frozenset({"image_csv", "image_csv-mine-problems.txt"}),
        warm=_warm_table,
    ),
)
