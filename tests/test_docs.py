"""The documentation: its examples run, its links lead somewhere, the names it cites exist."""

import doctest
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "CONTRIBUTING.md", ROOT / "README.md"])


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose_of(page: Path) -> str:
    """Text of a page without its code blocks."""
    return re.sub(r"^```.*?^```", "", text_of(page), flags=re.DOTALL | re.MULTILINE)


def resolves(name: str) -> bool:
    """Whether a dotted name is that of a module, or of something in a module."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            if not hasattr(found, part):
                return part in getattr(found, "__annotations__", {})
            found = getattr(found, part)
        return True
    return False


def test_the_example_of_the_data_model_is_as_the_page_says():
    result = doctest.testfile(str(ROOT / "docs" / "data-model.md"), module_relative=False, encoding="utf-8")
    assert result.failed == 0
    assert result.attempted > 30


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page):
    targets = re.findall(r"\]\(([^)\s]+)\)", prose_of(page))
    broken = []
    for target in targets:
        path, _, heading = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        if not linked.exists():
            broken.append(target)
        elif heading:
            titles = re.findall(r"^#+ (.+)$", text_of(linked), flags=re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}
            if heading not in anchors:
                broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_of_the_package_exist(page):
    names = set(re.findall(r"\bvbpi_mix(?:\.\w+)+", prose_of(page)))
    assert sorted(name for name in names if not resolves(name)) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page):
    named = set(re.findall(r"`((?:docs|tests|data|\.ci|vbpi_mix|benchmarks)/[^`\s*{<]*)`", prose_of(page)))
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


def test_a_missing_name_is_found():
    assert resolves("vbpi_mix.sbn.support.Support.index")
    assert not resolves("vbpi_mix.sbn.support.Absent")
    assert not resolves("vbpi_mix.absent")
