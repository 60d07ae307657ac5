"""Encoded image files to arrays, equal to what Pillow gives, pixel for pixel.

The published system loads images with Pillow (`Image.open(path).convert('RGB')`,
then `resize(..., Image.NEAREST)`). OpenCV decodes PNG and JPEG a few times faster
and to the same values, so it does the work; the tests hold the two equal.
"""

import io
import struct
import warnings
import zlib

import cv2
import numpy as np
from PIL import Image

from radimagenet_jax.data import formats, native_worker
from radimagenet_jax.errors import DataError

# The formats that are opened, by how their files begin; Pillow would read two dozen more.
FORMATS = "PNG, JPEG, TIFF, BMP or DICOM"
_ANY_TIFF = (*formats.TIFF, *formats.BIG_TIFF)
# PNG's IHDR is always the first chunk: signature, length, type, width, height, depth.
_PNG_DEPTH_OFFSET = 24
# Start-of-frame markers; C4, C8 and CC lie among them and mean other things.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# A progressive JPEG comes in some ten scans; each costs a walk over the whole image.
_JPEG_SCAN = b"\xff\xda"
_MAX_SCANS = 200
_SOON_DECODED = (
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE),
)
# Twice the largest radiograph: one image, decoded, takes a few hundred megabytes at most.
MAX_PIXELS = 50_000_000
# More pages than any file of images has; a chain of pages may be a circle.
_MAX_PAGES = 100_000

# Size is judged by `_check_size`, in a sentence that names the file. The filter is set once, since
# threads that decode would undo each other's, and those of others, with `catch_warnings`.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def decode(encoded: bytes, *, name: str) -> np.ndarray:
    """Decodes an image file as `PIL.Image.open(...).convert('RGB')` does.

    Transparency is dropped, palettes are looked up, and a camera's orientation tag
    is ignored, as Pillow does. The format is taken from the content, never from the
    file's extension.

    Args:
      encoded: The file's bytes: PNG, JPEG, BMP or TIFF, of which it is the first page.
      name: What to call the image in an error message.

    Returns:
      (H, W, 1) uint8 when the three channels are equal everywhere, else (H, W, 3)
      uint8 in RGB order.

    Raises:
      DataError: If the bytes are no readable image, or claim more than `MAX_PIXELS`.
    """
    _check_size(*_claimed_size(encoded), name)
    if _is_plain_grey_png(encoded):
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_GRAYSCALE)
        if image is None:
            raise DataError(_damaged(name))
        return image[..., None]
    if encoded.startswith(formats.PNG) or (
        # Pillow converts CMYK by a rule of its own, so those few files stay with Pillow.
        encoded.startswith(formats.JPEG) and _jpeg_channels(encoded) != 4
    ):
        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
        if image is None:
            raise DataError(_damaged(name))
    elif encoded.startswith(_ANY_TIFF):
        image = _tiff_page(encoded, 0, name)
    else:
        image = _rgb(_open_with_pillow(encoded, name), name)
    return _grey_if_equal(image)


def _grey_if_equal(image: np.ndarray) -> np.ndarray:
    """Returns one channel of three where they are equal everywhere."""
    # Two comparisons of flat views are several times faster than one of all three channels.
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    if np.array_equal(red, green) and np.array_equal(red, blue):
        return np.ascontiguousarray(image[..., :1])
    return image


def encode_png(image: np.ndarray) -> bytes:
    """Encodes an image without loss.

    Args:
      image: (H, W), (H, W, 1) or (H, W, 3) RGB, uint8.
    """
    is_rgb = image.ndim == 3 and image.shape[-1] == 3
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if is_rgb else image
    return cv2.imencode(".png", pixels)[1].tobytes()


def encode_grey(image: np.ndarray) -> bytes:
    """Encodes a grey image without loss, as a PNG that is soon decoded.

    Rows are kept as they are (no filter has to be undone) and runs are the only repetitions that
    are looked for: of OpenCV's settings that compress, these are decoded fastest, 1.5 times as
    fast as its defaults, for files an eighth larger.

    Args:
      image: (H, W, 1) uint8.
    """
    return cv2.imencode(".png", image, _SOON_DECODED)[1].tobytes()


def _is_plain_grey_png(encoded: bytes) -> bool:
    """Tells whether a PNG has one channel of 8 bits and no transparency, from its header alone."""
    return (
        encoded.startswith(formats.PNG)
        and encoded[_PNG_DEPTH_OFFSET : _PNG_DEPTH_OFFSET + 2] == b"\x08\x00"
        and encoded.find(b"tRNS", 0, encoded.find(b"IDAT")) < 0
    )


def resize_nearest(image: np.ndarray, size: int) -> np.ndarray:
    """Resizes to a square as `PIL.Image.resize((size, size), Image.NEAREST)` does.

    The aspect ratio is not kept.

    Args:
      image: (H, W, C), any dtype.
      size: Side of the result in pixels, at least 1.

    Returns:
      (size, size, C), the same dtype, contiguous.
    """
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        return np.ascontiguousarray(image)
    rows = nearest_indices(height, size)
    columns = nearest_indices(width, size)
    return np.ascontiguousarray(image[rows[:, None], columns])


def nearest_indices(source: int, target: int) -> np.ndarray:
    """Returns (target,) int: the source index of each target pixel along one axis.

    Pillow walks the centres of the target's pixels by repeated addition of the scale in
    double precision and cuts off the fraction; the rounding of those sums decides some
    pixels, so the sums are repeated here.
    """
    scale = source / target
    steps = np.full(target, scale)
    steps[0] = scale * 0.5
    # add.accumulate sums from left to right in double precision, as Pillow's loop does.
    return np.add.accumulate(steps).astype(np.intp)


def check_image(
    encoded: bytes, *, name: str, frame: int | None = None, is_mask: bool = False
) -> np.ndarray:
    """Verifies an image file completely, once, when a data set is prepared.

    Args:
      encoded: The file's bytes.
      name: What to call the image in a message.
      frame: The page of a TIFF with several, from 0; may be None where there is one image.
      is_mask: Accept a GIF too, in which a published data set has its masks.

    Returns:
      The image, as `decode` gives it.

    Raises:
      DataError: If the file is empty, no image, cut short or damaged, has more than
        8 bits a channel (which every reader would reduce in its own way), is
        implausibly large, has no such frame, or has several and `frame` is None. The message
        names the file and the remedy.
    """
    if not encoded:
        raise DataError(f"{name} is empty; download or copy it again.")
    if encoded.startswith(_ANY_TIFF):
        return _grey_if_equal(_tiff_page(encoded, frame, name))
    is_gif = is_mask and encoded.startswith(formats.GIF)
    image = _open_with_pillow(encoded, name, is_gif=is_gif)
    _check_size(image.width, image.height, name)
    _check_depth(encoded, image, name)
    if is_gif:
        return _grey_if_equal(_rgb(image, name))
    if frame:
        raise DataError(
            f"{name} has no frame {frame}, since it is a single image; leave the frame empty."
        )
    if encoded.startswith(formats.PNG):
        # Check sums find what transport damages; decoding, once, finds what a writer did wrong.
        if not _has_whole_chunks(encoded):
            raise DataError(_damaged(name))
        return decode(encoded, name=name)
    if encoded.count(_JPEG_SCAN) > _MAX_SCANS:
        raise DataError(_damaged(name))
    _load(image, name)  # OpenCV reads a JPEG that ends early as if its rest were grey
    return decode(encoded, name=name)


def _check_size(width: int, height: int, name: str) -> None:
    if width * height > MAX_PIXELS:
        raise DataError(
            f"{name} has {width} x {height} pixels, more than the "
            f"{MAX_PIXELS:,} that are accepted; scale it down."
        )


def _check_depth(encoded: bytes, image: Image.Image, name: str) -> None:
    is_png = encoded.startswith(formats.PNG)
    if (is_png and encoded[_PNG_DEPTH_OFFSET] == 16) or image.mode[0] in "IF":
        raise DataError(
            f"{name} has more than 8 bits a channel; choose a grey-value window "
            "and save it as an 8-bit PNG."
        )


def _load(image: Image.Image, name: str) -> None:
    try:
        image.load()
    # Pillow's readers raise whatever their format's parser met: OSError, ValueError,
    # SyntaxError, struct.error, IndexError. All of them mean the same to the user.
    except Exception as error:
        raise DataError(_damaged(name)) from error


def _rgb(image: Image.Image, name: str) -> np.ndarray:
    _load(image, name)
    try:
        return np.asarray(image.convert("RGB"))
    except Exception as error:  # as in `_load`
        raise DataError(_damaged(name)) from error


def _tiff_page(encoded: bytes, page: int | None, name: str) -> np.ndarray:
    """Returns a page as RGB, decoded in a worker: (H, W, 3) uint8."""
    return native_worker.decode(
        f"{__name__}:decode_tiff", encoded, name=name, arguments=(page, name)
    )


def decode_tiff(encoded: bytes, page: int | None, name: str) -> np.ndarray:
    """Verifies and decodes a page of a TIFF in this process; `check_image` does so in a worker.

    Args:
      encoded: The file's bytes.
      page: From 0; may be None where there is one.
      name: What to call the image in a message.

    Returns:
      (H, W, 3) uint8, RGB.

    Raises:
      DataError: As `check_image` does.
    """
    image = _open_with_pillow(encoded, name)
    pages = _pages(image, name)
    if page is None and pages > 1:
        raise DataError(
            f"{name} has {pages} frames; choose one by its number from 0 in a column frame, or "
            "save each as an image."
        )
    if page is not None and page >= pages:
        raise DataError(f"{name} has no frame {page}; choose one of 0 to {pages - 1}.")
    try:
        image.seek(page or 0)
    except Exception as error:
        raise DataError(_damaged(name)) from error
    _check_size(image.width, image.height, name)
    _check_depth(encoded, image, name)
    return _rgb(image, name)


def _pages(image: Image.Image, name: str) -> int:
    try:
        pages = 1
        while pages < _MAX_PAGES:
            image.seek(pages)
            pages += 1
    except EOFError:
        pass
    except Exception as error:  # as in `_load`
        raise DataError(_damaged(name)) from error
    return pages


def count_pages(encoded: bytes, *, name: str) -> int:
    """Counts the images of a file: those of a TIFF, in a worker; any other file has one.

    Raises:
      DataError: If it is a damaged TIFF.
    """
    if not encoded.startswith(_ANY_TIFF):
        return 1
    found = native_worker.decode(f"{__name__}:count_tiff", encoded, name=name, arguments=(name,))
    return int(found[0])


def count_tiff(encoded: bytes, name: str) -> np.ndarray:
    """Counts a TIFF's pages in this process, as (1,) int; `count_pages` does so in a worker."""
    return np.array([_pages(_open_with_pillow(encoded, name), name)])


def _has_whole_chunks(png: bytes) -> bool:
    """Tells whether a PNG's chunks are all there, each with its check sum, the end included."""
    view = memoryview(png)
    position = len(formats.PNG)
    while position + 12 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, position)
        end = position + 8 + length
        if end + 4 > len(png):
            return False
        (stated,) = struct.unpack_from(">I", png, end)
        if zlib.crc32(view[position + 4 : end]) != stated:
            return False
        if kind == b"IEND":
            return True
        position = end + 4
    return False


def _open_with_pillow(encoded: bytes, name: str, *, is_gif: bool = False) -> Image.Image:
    signatures = {
        "PNG": (formats.PNG,),
        "JPEG": (formats.JPEG,),
        "TIFF": _ANY_TIFF,
        "BMP": (formats.BMP,),
    }
    kinds = [kind for kind, begins in signatures.items() if encoded.startswith(begins)]
    if is_gif:
        kinds = ["GIF"]
    unknown = (
        f"{name} is not an image that can be read ({FORMATS} is expected); "
        "save it as one of these, or download or copy it again."
    )
    if not kinds:
        raise DataError(unknown)
    try:
        return Image.open(io.BytesIO(encoded), formats=kinds)
    except Image.DecompressionBombError as error:
        raise DataError(
            f"{name} claims more pixels than the {MAX_PIXELS:,} that are accepted; scale it down."
        ) from error
    except Exception as error:
        raise DataError(unknown) from error


def _claimed_size(encoded: bytes) -> tuple[int, int]:
    """Returns the width and height in the header of a PNG or JPEG, 0 where there is none."""
    if encoded.startswith(formats.PNG) and len(encoded) >= _PNG_DEPTH_OFFSET:
        width, height = struct.unpack_from(">II", encoded, _PNG_DEPTH_OFFSET - 8)
        return width, height
    if encoded.startswith(formats.JPEG) and (frame := _jpeg_frame(encoded)):
        height, width = struct.unpack_from(">HH", encoded, frame + 5)
        return width, height
    return 0, 0


def _jpeg_channels(encoded: bytes) -> int:
    """Returns the number of colour components of a JPEG, 0 when its header is damaged."""
    frame = _jpeg_frame(encoded)
    return encoded[frame + 9] if frame else 0


def _jpeg_frame(encoded: bytes) -> int:
    """Returns where the frame header of a JPEG begins, 0 when there is none."""
    position = 2
    while position + 10 <= len(encoded):
        if encoded[position] != 0xFF:
            return 0
        marker = encoded[position + 1]
        if marker == 0xFF:  # fill bytes may precede a marker
            position += 1
        elif marker in _JPEG_FRAMES:
            return position
        else:
            (length,) = struct.unpack_from(">H", encoded, position + 2)
            position += 2 + length
    return 0


def _damaged(name: str) -> str:
    return f"{name} is cut short or damaged; download or copy it again."
