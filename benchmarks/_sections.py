"""What a section of the benchmark report consists of.

Every module of ``benchmarks/sections`` turns the JSON files of one claim into a `Section`; ``report.py``
renders all of them as Markdown and as one self-contained page.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Table:
    """A table of formatted cells.

    Attributes:
        caption: One sentence: what the rows are, units, numbers of runs.
        columns: Header.
        rows: Cells, as text; as many in each row as there are columns.
    """

    caption: str
    columns: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Figure:
    """A plot.

    Attributes:
        name: Stem of the image's file name, unique in the report.
        caption: One or two sentences: what is plotted, what to see.
        draw: Draws on an empty matplotlib figure, which it may resize.
    """

    name: str
    caption: str
    draw: Callable[[Any], None]


@dataclass(frozen=True)
class Section:
    """One claim: what was asked, what was measured, what it says.

    Attributes:
        title: Heading.
        text: Paragraphs in Markdown (plain paragraphs, emphasis, code and links only), the findings first.
        parts: Tables and figures, in order.
        sources: Result files the section was made from, relative to ``results/``.
    """

    title: str
    text: list[str]
    parts: list[Table | Figure]
    sources: list[str]
