"""Pictures as SVG in a page: all texts and attributes are escaped, colours come from the page's style."""

from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element


def picture(width: float, height: float, label: str, kind: str) -> Element:
    """An empty picture.

    Args:
        width: Width in pixels at the size that its text is made for.
        height: Height likewise.
        label: What it shows, for those who do not see it.
        kind: Class of the page's style.
    """
    size = {
        "viewBox": f"0 0 {number(width)} {number(height)}",
        "width": number(width),
        "height": number(height),
    }
    return Element("svg", {**size, "class": kind, "role": "img", "aria-label": label})


def add(parent: Element, tag: str, text: str | None = None, **attributes: Any) -> Element:
    """A new last element of another.

    Args:
        parent: The other.
        tag: Its name.
        text: Its text.
        attributes: Its attributes: ``class_`` is ``class``, elsewhere ``_`` stands for ``-``; floats are
            rounded to hundredths, None is left out.
    """
    child = ElementTree.SubElement(
        parent,
        tag,
        {
            name.rstrip("_").replace("_", "-"): number(value) if isinstance(value, float) else str(value)
            for name, value in attributes.items()
            if value is not None
        },
    )
    child.text = text
    return child


def markup(element: Element) -> str:
    """Text of a picture."""
    return ElementTree.tostring(element, encoding="unicode")


def number(value: float) -> str:
    """A coordinate, to hundredths of a pixel."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
