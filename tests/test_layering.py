"""Data flow one way: a module imports only from its own row of the layers or from rows above it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "vbpi_mix"

FOUNDATION = ("errors", "shapes", "seeding", "machine", "torch_files", "_elementary")
ROWS = (
    FOUNDATION,
    ("datasets", "alignment", "_alignment_formats", "_nexus_matrix", "_nucleotides"),
    ("patterns",),
    ("trees",),
    ("sbn",),
    ("branches",),
    ("likelihood",),
    ("objectives",),
    ("training",),
    ("results",),
    ("report",),
    ("api", "vae"),
    ("cli", "_cli_*"),
)
"""Modules and folders of the package, from the first that may be imported to the last."""

TREELESS = {"objectives": (*FOUNDATION, "objectives"), "vae": (*FOUNDATION, "objectives", "vae")}
"""Folders that know neither trees nor alignments, and all that they may import from the package."""


def layer(part: str) -> str:
    """Entry of `ROWS` for the first part of a module's name below the package."""
    return "_cli_*" if part.startswith("_cli_") else part


def row(part: str) -> int:
    """Row of a module or folder, counted from the top."""
    for number, members in enumerate(ROWS):
        if layer(part) in members:
            return number
    pytest.fail(f"vbpi_mix.{part} is in no row of the layers: add it to ROWS and to CONTRIBUTING.md")


def imported_parts(source: str) -> Iterator[str]:
    """First parts below the package of all that a module imports, wherever in the file it does so."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: expected an absolute import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            top, *below = name.split(".")
            if top == "vbpi_mix" and below and not below[0].startswith("__"):
                yield below[0]


def breaches(part: str, source: str) -> list[str]:
    """What the source of a module of this part of the package imports against the layers."""
    allowed = TREELESS.get(part)
    return [
        f"imports {other}"
        for other in imported_parts(source)
        if row(other) > row(part) or (allowed is not None and other not in allowed)
    ]


def modules() -> list[Path]:
    """Modules of the package, its own ``__init__`` apart, which may import from all rows."""
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_come_from_the_same_row_or_above(path):
    part = path.relative_to(PACKAGE).with_suffix("").parts[0]
    assert breaches(part, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("part", "source"),
    [
        ("trees", "from vbpi_mix.sbn.support import build_support"),
        ("patterns", "import vbpi_mix.trees.topology"),
        ("sbn", "def f():\n    from vbpi_mix import results"),
        ("objectives", "from vbpi_mix.trees.topology import validate"),
        ("objectives", "from vbpi_mix import patterns"),
        ("vae", "from vbpi_mix.training.loop import train"),
        ("results", "from vbpi_mix import _cli_config"),
    ],
)
def test_a_breach_is_found(part, source):
    assert len(breaches(part, source)) == 1


@pytest.mark.parametrize(
    ("part", "source"),
    [
        ("trees", "from vbpi_mix.trees import _kernels\nfrom vbpi_mix.errors import VbpiMixError"),
        ("objectives", "from vbpi_mix.objectives.bounds import log_sum_exp\nimport numpy as np"),
        ("cli", "from vbpi_mix import __version__\nfrom vbpi_mix._cli_config import read_config"),
    ],
)
def test_what_the_layers_allow_is_no_breach(part, source):
    assert breaches(part, source) == []


def test_a_module_outside_the_rows_is_refused():
    with pytest.raises(pytest.fail.Exception, match=r"vbpi_mix\.utils is in no row"):
        breaches("trees", "from vbpi_mix.utils import helper")
