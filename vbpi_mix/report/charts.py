"""Charts of a run's page: lines, points against a diagonal, and densities small enough for a table.

They are as wide as a phone, so that their text keeps its size there. Lines are told apart by dashes too.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

import numpy as np
from jaxtyping import Float64

from vbpi_mix.report.svg import add, markup, number, picture

WIDTH, HEIGHT = 380.0, 250.0
LEFT, RIGHT, TOP, BOTTOM = 68.0, 20.0, 34.0, 42.0
MAX_POINTS = 400
"""Points of a line; longer ones are thinned."""


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes:
        name: Its name in the legend.
        x: Positions along it.
        y: Values.
    """

    name: str
    x: Float64[np.ndarray, "_"]
    y: Float64[np.ndarray, "_"]


@dataclass(frozen=True)
class _Axes:
    """Where values go in a picture."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def x(self, value: float) -> float:
        low, high = self.x_range
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def path(self, x: Sequence[float], y: Sequence[float]) -> str:
        return "M" + "L".join(f"{number(self.x(a))} {number(self.y(b))}" for a, b in zip(x, y, strict=True))


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round values from low to high, a step of 1, 2 or 5 times a power of ten apart.

    Args:
        low: Least value.
        high: Largest value, above the least.
        most: Steps that there may be.
    """
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def line_chart(
    label: str,
    lines: Sequence[Line],
    x_name: str,
    y_name: str,
    y_range: tuple[float, float] | None = None,
    rule: tuple[str, float] | None = None,
) -> str:
    """Lines over a common axis.

    Args:
        label: What the chart shows, for those who do not see it.
        lines: The lines, of one point at least.
        x_name: Name of the horizontal axis, with its unit.
        y_name: Name of the vertical axis, with its unit.
        y_range: Least and largest value shown; by default those of the lines and the rule.
        rule: A name, and a value at which it stands on a line across.
    """
    if y_range is None:
        values = [*(line.y for line in lines), np.array([rule[1]] if rule else [])]
        y_range = _widened(np.concatenate(values), 0.08)
    axes = _Axes(_widened(np.concatenate([line.x for line in lines]), 0.0), y_range)
    chart = picture(WIDTH, HEIGHT, label, "chart")
    _frame(chart, axes, x_name, y_name)
    if rule:
        name, value = rule
        add(chart, "path", class_="rule", d=axes.path(list(axes.x_range), [value, value]))
        add(chart, "text", name, x=WIDTH - RIGHT, y=axes.y(value) - 5, class_="tick", text_anchor="end")
    for i, line in enumerate(lines):
        shown = np.unique(np.linspace(0, len(line.x) - 1, min(MAX_POINTS, len(line.x))).astype(int))
        kind = f"line line-{i % 4}"
        if len(shown) == 1:
            add(chart, "circle", class_="point", cx=axes.x(line.x[0]), cy=axes.y(line.y[0]), r=3)
        else:
            add(chart, "path", class_=kind, d=axes.path(line.x[shown].tolist(), line.y[shown].tolist()))
    if len(lines) > 1:
        place = WIDTH - RIGHT - 64.0 * len(lines)
        for i, line in enumerate(lines):
            x = place + 64.0 * i
            add(chart, "path", class_=f"line line-{i % 4}", d=f"M{number(x)} 12h22")
            add(chart, "text", line.name, x=x + 26, y=16, class_="tick")
    return markup(chart)


def scatter_chart(
    label: str,
    x: Float64[np.ndarray, "split"],
    y: Float64[np.ndarray, "split"],
    x_name: str,
    y_name: str,
    titles: Sequence[str],
) -> str:
    """Points of two probabilities each against the diagonal.

    Args:
        label: What the chart shows, for those who do not see it.
        x: Horizontal positions, from 0 to 1.
        y: Vertical positions, from 0 to 1.
        x_name: Name of the horizontal axis.
        y_name: Name of the vertical axis.
        titles: What each point is.
    """
    axes = _Axes((0.0, 1.0), (0.0, 1.0))
    chart = picture(WIDTH, HEIGHT, label, "chart")
    _frame(chart, axes, x_name, y_name)
    add(chart, "path", class_="rule", d=axes.path([0.0, 1.0], [0.0, 1.0]))
    for a, b, title in zip(x.tolist(), y.tolist(), titles, strict=True):
        point = add(chart, "circle", class_="point", cx=axes.x(a), cy=axes.y(b), r=3)
        add(point, "title", title)
    return markup(chart)


def density(label: str, values: Float64[np.ndarray, "draw"], interval: tuple[float, float]) -> str:
    """A small density with an interval of it shaded: Gaussian kernels of Silverman's width.

    Args:
        label: What it is of, for those who do not see it.
        values: Draws.
        interval: Ends of the interval.
    """
    width, height = 150.0, 40.0
    drawing = picture(width, height, label, "density")
    low, high = np.quantile(values, [0.001, 0.999])
    if high <= low:  # all draws alike
        add(drawing, "path", class_="line line-0", d=f"M{number(width / 2)} {height:g}V4")
        return markup(drawing)
    grid = np.linspace(low, high, 64)
    heights = _kernel_density(values, grid)

    def place(at: np.ndarray, value: np.ndarray) -> list[str]:
        x = (at - low) / (high - low) * width
        y = height - 1 - value / heights.max() * (height - 5)
        return [f"{number(a)} {number(b)}" for a, b in zip(x.tolist(), y.tolist(), strict=True)]

    inside = np.unique(np.clip(np.concatenate([interval, grid]), *np.clip(interval, low, high)))
    shape = place(inside, np.interp(inside, grid, heights))
    ends = [number((at - low) / (high - low) * width) for at in (inside[0], inside[-1])]
    base = number(height - 1)
    add(drawing, "path", class_="area", d=f"M{ends[0]} {base}L" + "L".join(shape) + f"L{ends[1]} {base}Z")
    add(drawing, "path", class_="line line-0", d="M" + "L".join(place(grid, heights)))
    return markup(drawing)


def _kernel_density(
    values: Float64[np.ndarray, "draw"], grid: Float64[np.ndarray, "_"]
) -> Float64[np.ndarray, "_"]:
    """Density on an even grid up to a factor, from a fine histogram smoothed by a Gaussian."""
    quartiles = np.subtract(*np.quantile(values, [0.75, 0.25]))
    spread = min(values.std(), quartiles / 1.349) or values.std()
    # Where a few draws lie far out the grid is wide, and no kernel may fall between its points.
    bandwidth = max(0.9 * spread * len(values) ** -0.2, 0.5 * (grid[1] - grid[0]))
    counts, edges = np.histogram(values, bins=512, range=(grid[0], grid[-1]))
    centres = 0.5 * (edges[1:] + edges[:-1])
    return np.exp(-0.5 * ((grid[:, None] - centres) / bandwidth) ** 2) @ counts.astype(np.float64)


def _widened(values: Float64[np.ndarray, "_"], share: float) -> tuple[float, float]:
    """The range of values, with some room at both ends, and never empty."""
    low, high = float(values.min()), float(values.max())
    room = share * (high - low) if high > low else max(0.5, 1e-3 * abs(high))
    return low - room, high + room


def _frame(chart: Element, axes: _Axes, x_name: str, y_name: str) -> None:
    """Axes, ticks and their names."""
    bottom = HEIGHT - BOTTOM
    write = _tick_format(*axes.y_range)
    for value in ticks(*axes.y_range):
        y = axes.y(value)
        add(chart, "path", class_="grid", d=f"M{number(LEFT)} {number(y)}H{number(WIDTH - RIGHT)}")
        add(chart, "text", write(value), x=LEFT - 7, y=y + 3.5, class_="tick", text_anchor="end")
    write = _tick_format(*axes.x_range)
    for value in ticks(*axes.x_range):
        x = axes.x(value)
        add(chart, "path", class_="axis", d=f"M{number(x)} {number(bottom)}v4")
        add(chart, "text", write(value), x=x, y=bottom + 16, class_="tick", text_anchor="middle")
    add(chart, "path", class_="axis", d=f"M{number(LEFT)} {number(bottom)}H{number(WIDTH - RIGHT)}")
    add(chart, "text", y_name, x=4, y=16, class_="name")
    middle = 0.5 * (LEFT + WIDTH - RIGHT)
    add(chart, "text", x_name, x=middle, y=HEIGHT - 6, class_="name", text_anchor="middle")


def _tick_format(low: float, high: float) -> Callable[[float], str]:
    """How to write ticks of a range: as many decimals as they need, a true minus."""
    values = ticks(low, high)
    step = values[1] - values[0] if len(values) > 1 else high - low
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return lambda value: f"{value:,.{decimals}f}".replace("-", "−")
