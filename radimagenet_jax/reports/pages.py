"""What our self-contained pages share: templates, numbers in words, images inside the page."""

import base64
import functools
import io
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from radimagenet_jax.files import replacing
from radimagenet_jax.reports import provenance

# Pixels of the longer side: as networks see an image, and enough for one that is opened large.
_THUMBNAIL = 320
# Of an audit, whose pictures are compared by eye and may be some hundred.
_PHOTOGRAPH = 480
_QUALITY = 88  # of JPEG
_NAME_SHOWN = 48  # characters of a key under its image, three lines; the rest is in its tooltip


def write(path: Path, template: str, /, **values: Any) -> Path:
    """Writes a page; it appears whole or not at all.

    Args:
      path: Where to.
      template: Name of one of the templates beside this module.
      **values: What it shows; a name that it uses and that is not here is an error.

    Returns:
      The path.

    Raises:
      DataError: If the file cannot be written.
    """
    page = _environment().get_template(template).render(values)
    # A file name with bytes that are not UTF-8 is shown with question marks.
    with replacing(path, errors="replace") as file:
        file.write(page)
    return path


@functools.cache
def _environment() -> jinja2.Environment:
    """The templates beside this module; undefined names are errors."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("radimagenet_jax.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "figure": _figure,
        "percent": _percent,
        "limits": _limits,
        "count": _count,
        "p_value": p_value,
        "shortened": _shortened,
        "network_in_words": provenance.in_words,
        "weights_rows": provenance.weights_rows,
    }
    environment.globals["not_a_device"] = provenance.NOT_A_DEVICE
    return environment


def _figure(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def p_value(value: float) -> str:
    """A p-value as text; 0.001 is the smallest that is told."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _limits(interval: tuple[float, float] | None) -> str:
    return "–" if interval is None else f"{100 * interval[0]:.0f} to {100 * interval[1]:.0f} %"


def _count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _shortened(text: str) -> str:
    """A long name without its middle: folders and file names differ at their ends."""
    if len(text) <= _NAME_SHOWN:
        return text
    return f"{text[: _NAME_SHOWN // 3]}…{text[-(_NAME_SHOWN * 2 // 3) :]}"


def thumbnail(image: NDArray[np.uint8] | None) -> dict[str, Any] | None:
    """Scales an image down to be shown in a page, as PNG; see `photograph`."""
    return _scaled(image, _THUMBNAIL, "png")


def photograph(image: NDArray[np.uint8] | None) -> dict[str, Any] | None:
    """Scales an image down to be shown in a page, larger than `thumbnail` and as JPEG.

    Args:
      image: (H, W), (H, W, 1) or (H, W, 3) uint8, or None.

    Returns:
      'source' (a data URI), 'width' and 'height' in pixels; None for None.

    Raises:
      ValueError: If the shape or dtype is another.
    """
    return _scaled(image, _PHOTOGRAPH, "jpeg")


def _scaled(image: NDArray[np.uint8] | None, side: int, form: str) -> dict[str, Any] | None:
    if image is None:
        return None
    image = np.asarray(image)
    if image.ndim == 3 and image.shape[-1] == 1:
        image = image[..., 0]
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
        raise ValueError(
            f"a thumbnail must be (H, W), (H, W, 1) or (H, W, 3) uint8, not {image.dtype} "
            f"{image.shape}."
        )
    picture = Image.fromarray(image)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return {"source": data_uri(picture, form), "width": picture.width, "height": picture.height}


def data_uri(picture: Image.Image, form: str = "png") -> str:
    """Puts a picture into a URI, as PNG or JPEG."""
    buffer = io.BytesIO()
    picture.save(buffer, format=form, quality=_QUALITY)
    return f"data:image/{form};base64," + base64.b64encode(buffer.getvalue()).decode()
