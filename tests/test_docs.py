"""The documentation: its examples run, its links lead somewhere, what it cites exists and is as it says."""

import doctest
import importlib
import re
import shlex
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from vbpi_mix.alignment import Alignment
from vbpi_mix.api import fit
from vbpi_mix.cli import app
from vbpi_mix.results.convergence import (
    MAX_ASDSF,
    MAX_EVIDENCE_DIFFERENCE,
    MAX_RISE,
    MIN_ESS,
    MIN_FREQUENCY,
    MIN_REPORTS,
)
from vbpi_mix.results.diagnostics import PARETO_K_GOOD
from vbpi_mix.training.config import (
    DEFAULT_MODELS,
    ENOUGH_ESS,
    FIRST_ROUND,
    DataConfig,
    EvaluationConfig,
    GrowthConfig,
    MachineConfig,
    MixtureConfig,
    OptimisationConfig,
    PriorsConfig,
    RunsConfig,
    steps_of_rounds,
)
from vbpi_mix.trees.samples import read_tree_sample

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "CONTRIBUTING.md", ROOT / "README.md"])

RUNS = RunsConfig()
GROWTH = GrowthConfig()
STEPS = OptimisationConfig().iterations
REPEATS = EvaluationConfig().repeats
DRAWS = EvaluationConfig().samples
PRIORS = PriorsConfig()
RATE = DataConfig(dataset="DS1").branch_prior_rate
ALL_STEPS = steps_of_rounds(FIRST_ROUND, RUNS.max_rounds)

QUOTED = [
    ("diagnostics.md", f"The first round of training is short, {FIRST_ROUND:,} steps"),
    ("diagnostics.md", f"({RUNS.max_rounds} unless given: {ALL_STEPS:,} steps)"),
    (
        "diagnostics.md",
        f"is about {ENOUGH_ESS:,.0f}, or after {REPEATS} repeats of {DRAWS:,}",
    ),
    ("diagnostics.md", f"{STEPS:,} steps and {REPEATS} repeats unless"),
    ("diagnostics.md", f"in nats | no more than {MAX_RISE},"),
    ("diagnostics.md", f"importance weights | below {PARETO_K_GOOD} in every run"),
    ("diagnostics.md", f"importance draws | at least {MIN_ESS:.0f} in every run"),
    ("diagnostics.md", f"between the runs | at most {MAX_ASDSF} |"),
    ("diagnostics.md", f"a frequency of {MIN_FREQUENCY:.2f} or more"),
    ("diagnostics.md", f"in nats | at most {MAX_EVIDENCE_DIFFERENCE}, or"),
    ("diagnostics.md", f"With fewer than {MIN_REPORTS} reports"),
    ("support.md", f"If that is more than {100 * GROWTH.max_outside:g}%"),
    ("assumptions.md", f"Above {100 * GROWTH.max_outside:g}% of estimated mass outside"),
    (
        "assumptions.md",
        f"K = {MixtureConfig().particles} particles, {STEPS:,} steps",
    ),
    ("assumptions.md", f"Several runs train in rounds: {FIRST_ROUND:,} steps"),
    ("assumptions.md", f"effective sample size of {ENOUGH_ESS:,.0f} of all runs"),
    (
        "models.md",
        f"the model is {DEFAULT_MODELS['alignment']}, and {DEFAULT_MODELS['dataset']} for",
    ),
    ("models.md", f"branch_prior_rate = {RATE}"),
    ("models.md", f"exchangeabilities = {PRIORS.exchangeabilities} frequencies = {PRIORS.frequencies}"),
    ("models.md", f"shape_rate = {PRIORS.shape_rate}"),
    ("for-mrbayes-users.md", f"exponential with rate {RATE:g} (mean {1 / RATE:g})"),
    ("for-mrbayes-users.md", f"| the same, {MAX_ASDSF} |"),
    ("for-mrbayes-users.md", f"`ess` {MIN_ESS:.0f} or more in each run, k-hat below {PARETO_K_GOOD} |"),
    ("for-mrbayes-users.md", f"marginal likelihood: {MAX_EVIDENCE_DIFFERENCE} nats"),
    ("for-mrbayes-users.md", f"every {MachineConfig().checkpoint_seconds:g} seconds"),
    ("tutorial.md", f"{DEFAULT_MODELS['alignment']} is the default"),
]
"""Defaults and thresholds that pages quote, with a few words around them; line breaks do not matter."""


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose_of(page: Path) -> str:
    """Text of a page without its code blocks."""
    return re.sub(r"^```.*?^```", "", text_of(page), flags=re.DOTALL | re.MULTILINE)


def blocks(page: Path, *languages: str) -> list[str]:
    """Code blocks of a page in these languages; "" is that of blocks which name none."""
    found = re.findall(r"^```([^\n]*)\n(.*?)^```", text_of(page), flags=re.DOTALL | re.MULTILINE)
    return [code for language, code in found if language in languages]


def toctree_entries(page: Path) -> list[Path]:
    """Pages that the tables of contents of a page list."""
    lines = "".join(blocks(page, "{toctree}")).splitlines()
    return [page.parent / f"{line}.md" for line in lines if line and not line.startswith(":")]


@cache
def commands() -> dict[str, Any]:
    """Commands by what is typed after the program's name."""
    found: dict[str, Any] = {}

    def walk(command: Any, name: str) -> None:
        found[name] = command
        for part, inner in getattr(command, "commands", {}).items():
            walk(inner, f"{name} {part}".strip())

    walk(typer.main.get_command(app), "")
    return found


def options_of(command: Any) -> set[str]:
    """All spellings of a command's options."""
    spellings = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
    return {name for name in spellings if name.startswith("-")} | {"--help", "-h"}


def command_lines(page: Path) -> list[list[str]]:
    """Words of the calls of the program on a page, in blocks and in the text."""
    text = re.sub(r"^#.*", "", "\n".join(blocks(page, "sh", "")), flags=re.MULTILINE)
    inline = re.findall(r"`(?:\S*/)?(vbpi-mix [^`]*)`", " ".join(prose_of(page).split()))
    in_blocks = re.findall(r"(?:^|[ /])(vbpi-mix (?!:).*)", text, flags=re.MULTILINE)
    return [shlex.split(line, comments=True)[1:] for line in (*in_blocks, *inline) if "'" not in line]


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


def test_every_page_of_the_site_is_in_one_table_of_contents():
    listed = [entry for page in DOCS.rglob("*.md") for entry in toctree_entries(page)]
    assert sorted([*listed, DOCS / "index.md"]) == sorted(DOCS.rglob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_calls_of_the_program_name_its_commands_and_their_options(page):
    wrong = []
    for words in command_lines(page):
        names = [name for name in commands() if name.split() == words[: len(name.split())]]
        command = commands()[max(names, key=len)]
        used = {re.sub("=.*", "", word) for word in words if re.match(r"-{1,2}[a-z]", word)}
        if hasattr(command, "commands") and words and not words[0].startswith("-"):
            wrong.append(" ".join(words))
        wrong += [f"{option} of: {' '.join(words)}" for option in used - options_of(command)]
    assert wrong == []


def test_calls_of_the_program_are_found():
    calls = command_lines(DOCS / "tutorial.md")
    assert ["run", "primates.nex", "--out", "primates"] in calls
    assert ["report", "DIR", "--reference"] in command_lines(DOCS / "for-mrbayes-users.md")


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.name)
def test_options_that_a_page_names_exist(page):
    known = set().union(*map(options_of, commands().values()))
    named = set(re.findall(r"`(--[a-z][a-z-]*)", prose_of(page)))
    assert sorted(named - known) == []


@pytest.mark.parametrize(("page", "words"), QUOTED)
def test_pages_quote_defaults_and_thresholds_as_they_are(page, words):
    assert words in " ".join(text_of(DOCS / page).split())


@pytest.mark.ape
def test_the_tutorials_figure_can_be_drawn(tmp_path, require_ape):
    newick = (
        "((Tarsius_syrichta:1,Lemur_catta:1):1,((((Homo_sapiens:1,Pan:1):1,Gorilla:1):1,Pongo:1):1,"
        "Hylobates:1):1,Saimiri_sciureus:1);"
    )
    (tmp_path / "trees.nwk").write_text(newick, encoding="utf-8")
    trees = read_tree_sample(tmp_path / "trees.nwk")
    states = 1 << np.random.default_rng(0).integers(4, size=(len(trees.taxa), 50), dtype=np.uint8)
    posterior = fit(
        Alignment(trees.taxa, states.astype(np.uint8), "made up"),
        trees,
        model="JC",
        optimisation={"iterations": 20},
        evaluation={"repeats": 2, "samples": 50},
    )
    posterior.write(tmp_path / "primates", num_trees=20)
    code = "\n".join(blocks(DOCS / "tutorial.md", "r"))
    assert code.count("library(ape)") == 1
    subprocess.run([require_ape, "-e", code], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "primates.pdf").read_bytes().startswith(b"%PDF")


def test_a_missing_name_is_found():
    assert resolves("vbpi_mix.sbn.support.Support.index")
    assert not resolves("vbpi_mix.sbn.support.Absent")
    assert not resolves("vbpi_mix.absent")
