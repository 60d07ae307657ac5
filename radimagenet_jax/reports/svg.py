"""Matplotlib figures as inline SVG that takes colours and fonts from the page around it."""

import contextlib
import io
import re
from collections.abc import Iterator
from xml.etree import ElementTree

import matplotlib.style
from matplotlib.figure import Figure

# Figures are drawn in these placeholder colours, which no data produce; in the SVG each
# becomes the page's CSS variable, so that one drawing serves the light and the dark page.
INK = "#000100"
MUTED = "#000200"
LINE = "#000300"
PRIMARY = "#000400"
SECONDARY = "#000500"
CONTRAST = "#000600"
_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    LINE: "--line",
    PRIMARY: "--primary",
    SECONDARY: "--secondary",
    CONTRAST: "--contrast",
}

_STYLE = {
    "svg.fonttype": "none",  # text stays text: sharp, selectable, in the page's font
    "svg.hashsalt": "report",  # identical figures give identical files
    "font.size": 11,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "axes.labelsize": 11,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "lines.solid_joinstyle": "round",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}
_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """Gives figures made inside the block the report's style, whatever the user's matplotlibrc."""
    with matplotlib.style.context(["default", _STYLE], after_reset=True):
        yield


def to_inline(figure: Figure, name: str, description: str) -> str:
    """Renders a figure as an SVG element for an HTML page.

    Args:
      figure: Drawn within `drawing`.
      name: Unique in the page; prefixes all ids, which are global in a page.
      description: What the figure shows, for those who do not see it.

    Returns:
      The element's markup, without XML declaration, metadata or any reference to the outside.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(buffer.getvalue())
    for metadata in root.findall(f"{_SVG}metadata"):
        root.remove(metadata)
    used = set(re.findall(r"(?:url\(|href=\")#([^)\"]+)", buffer.getvalue()))
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        _rewrite(element, name, used)
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    root.set("role", "img")
    root.set("aria-label", description)
    # Matplotlib gives its own default stroke style to all elements, which the page keeps.
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=True)


def _rewrite(element: ElementTree.Element, name: str, used: set[str]) -> None:
    """Makes one element's ids unique, its references local, its colours and fonts the page's."""
    identity = element.attrib.pop("id", None)
    if identity in used:
        element.set("id", f"{name}-{identity}")
    reference = element.attrib.pop(_HREF, None)
    if reference is not None:
        element.set("href", f"#{name}-{reference.removeprefix('#')}")
    for attribute, value in element.attrib.items():
        value = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", value)
        for placeholder, variable in _VARIABLES.items():
            value = value.replace(placeholder, f"var({variable})")
        if attribute == "style":
            # The font's size stays; its family is the page's.
            value = re.sub(r"font: ([\d.]+px) [^;]+", r"font-size: \1", value)
            value = re.sub(r"font-family: [^;]+;? ?", "", value)
        element.set(attribute, value)
