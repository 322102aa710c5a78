"""Sections of the benchmark report as Markdown and as one self-contained page, and their plots as SVG."""

import base64
import io
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _sections import Figure, Section, Table

TEMPLATES = Path(__file__).resolve().parent / "templates"

INK = "#2b2f36"
"""Colour of text and axes in plots; readers with a dark page see `DARK_INK`."""

DARK_INK = "#d5d9e0"
COLOURS = ("#3b82d6", "#e0762f", "#1f9e77", "#c2539b", "#8b70d8", "#b08a1e", "#d24b4b", "#5b9fae")
"""Colours of lines, of middling lightness: they stand out from a white page and from a black one."""

STYLE: dict[Any, Any] = {
    "axes.edgecolor": INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "figure.facecolor": "none",
    "font.size": 10,
    "grid.alpha": 0.25,
    "grid.color": INK,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.6,
    "savefig.facecolor": "none",
    "svg.fonttype": "none",  # text stays text: small files that can be searched
    "svg.hashsalt": "vbpi_mix",  # the same plot gives the same file
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}

DARK_STYLE = f"""<style>@media (prefers-color-scheme: dark) {{
[style*="fill: {INK}"] {{ fill: {DARK_INK} !important }}
[style*="stroke: {INK}"], [style*="stroke:{INK}"] {{ stroke: {DARK_INK} !important }}
}}</style>"""


@dataclass(frozen=True)
class Provenance:
    """What the files behind a section say about their making.

    Attributes:
        commits: Commits measured, ``-dirty`` where code differed from them.
        machines: Processors, with cores and memory.
        commands: Command lines.
    """

    commits: tuple[str, ...]
    machines: tuple[str, ...]
    commands: tuple[str, ...]

    @classmethod
    def of(cls, records: Iterable[dict]) -> "Provenance":
        """The provenance of result files."""
        made = [record["provenance"] for record in records if "provenance" in record]
        machines = [
            f"{m['processor']}, {m['cores']} cores, {m['memory_gib']} GiB"
            for m in (p["machine"] for p in made)
        ]
        commands = [" ".join(["python", f"benchmarks/{p['command'][0]}", *p["command"][1:]]) for p in made]
        return cls(
            tuple(dict.fromkeys(p["commit"] for p in made)),
            tuple(dict.fromkeys(machines)),
            tuple(dict.fromkeys(commands)),
        )

    def line(self) -> str:
        """One sentence for the end of a section."""
        return f"Measured at commit {', '.join(self.commits)} on {'; '.join(self.machines)}."


def draw(figure: Figure) -> str:
    """The plot as SVG text, which adapts to light and dark pages and is the same for the same data."""
    import matplotlib
    from cycler import cycler
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas

    with matplotlib.rc_context({**STYLE, "axes.prop_cycle": cycler(color=COLOURS)}):
        canvas = Canvas(figsize=(7.5, 4.2), layout="constrained")
        FigureCanvasSVG(canvas)
        with warnings.catch_warnings():
            # A plot may choose another layout than the usual one.
            warnings.filterwarnings("ignore", "The figure layout has changed")
            figure.draw(canvas)
        file = io.StringIO()
        canvas.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    end_of_tag = text.index(">") + 1
    return text[:end_of_tag] + DARK_STYLE + text[end_of_tag:]


def slug(title: str) -> str:
    """Anchor of a heading, as Markdown viewers make it."""
    return re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-")


def markdown_table(table: Table) -> str:
    """A Markdown table under its caption."""
    lines = [table.columns, ["---"] * len(table.columns), *table.rows]
    cells = (" | ".join(cell.replace("|", "\\|") for cell in line) for line in lines)
    return f"{table.caption}\n\n" + "\n".join(f"| {line} |" for line in cells)


def markdown(sections: list[Section], provenance: dict[str, Provenance], introduction: str) -> str:
    """The report as Markdown; plots are links to ``figures/<name>.svg``."""
    blocks = ["# Measured", introduction]
    blocks.append("\n".join(f"- [{section.title}](#{slug(section.title)})" for section in sections))
    for section in sections:
        blocks += [f"## {section.title}", *section.text]
        for part in section.parts:
            match part:
                case Table():
                    blocks.append(markdown_table(part))
                case Figure():
                    blocks.append(f"![{part.name}](figures/{part.name}.svg)\n\n{part.caption}")
        made = provenance[section.title]
        if made.commits:
            blocks.append(f"*{made.line()}*")
    return "\n\n".join(blocks) + "\n"


def page(
    sections: list[Section],
    provenance: dict[str, Provenance],
    introduction: str,
    drawings: dict[str, str],
) -> str:
    """The report as one HTML page that needs nothing else: styles and plots are inside."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markdown_it import MarkdownIt
    from markupsafe import Markup

    reader = MarkdownIt("commonmark", {"html": False})
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "paragraph": lambda text: Markup(reader.render(text)),
        "inline": lambda text: Markup(reader.renderInline(text)),
        "slug": slug,
        "is_number": is_number,
        "image": lambda name: (
            "data:image/svg+xml;base64," + base64.b64encode(drawings[name].encode()).decode()
        ),
    }
    environment.tests["table"] = lambda part: isinstance(part, Table)
    return environment.get_template("report.html").render(
        sections=sections, provenance=provenance, introduction=introduction
    )


def is_number(cell: str) -> bool:
    """Whether a cell holds figures, which are set to the right."""
    return bool(re.match(r"[-+−±<≥≤>~=]*\s?\d", cell)) or cell in ("-", "–", "")


def figures_not_in(part: str, report: str) -> list[str]:
    """Figures of one text that another lacks."""
    pattern = r"(?<![\w.])[-+]?\d[\d,]*(?:\.\d+)?"
    held = set(re.findall(pattern, report))
    return [figure for figure in re.findall(pattern, part) if figure not in held]
