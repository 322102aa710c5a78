"""How fast the likelihood is, and how near to what the processor can do: from ``kernel.py``."""

from pathlib import Path
from typing import Any

from _common import load
from _sections import Figure, Section, Table

TARGETS = {"float64": 0.8, "float32": 0.45}
"""Milliseconds for ten trees of DS1, value and gradient, one thread."""
TARGET_OVER_LIMIT = 3.0
TARGET_THREADS = 1.7
OTHERS = ("JC as GTR float64", "JC as GTR float32", "GTR+G4 float64", "GTR+G4 float32")


def section(results: Path) -> Section | None:
    """The section, from ``kernel/*.json``."""
    found = load(results, "kernel/*.json")
    measured = {content["dataset"]: content for content in found.values() if "dataset" in content}
    if not measured:
        return None
    names = sorted(measured, key=lambda name: (name.startswith("sim"), measured[name]["num_taxa"], name))
    rows = [measured[name] for name in names]
    parts: list[Table | Figure] = [
        *(_times(rows, dtype) for dtype in TARGETS),
        _comparison(rows),
        _general(rows),
    ]
    text = [*_targets(measured), _against(rows)]
    errors = found.get("kernel/errors.json")
    if errors is not None:
        parts.append(_errors(errors["errors"]))
        text.append(_harm(errors["errors"]))
    machine = found.get("kernel/machine.json")
    if machine is not None:
        text.append(_machine(machine))
    growth = found.get("kernel/growth.json")
    if growth is not None:
        text.append(_linearity(growth["growth"]))
        parts.append(
            Figure(
                "kernel-growth",
                f"Milliseconds for {growth['num_trees']} trees, value and gradient, one thread, medians, "
                "with least-squares lines. Left: simulated alignments, per thousand distinct patterns. "
                "Right: random columns of DS7.",
                lambda figure: _draw_growth(figure, growth["growth"]),
            )
        )
    return Section("Likelihood kernel", text, parts, [*found])


def _median(row: dict[str, Any], name: str) -> float:
    return float(row["milliseconds"][name]["median"])


def _best(row: dict[str, Any], name: str) -> float:
    return float(row["milliseconds"][name]["min"])


def _speed_up(row: dict[str, Any], dtype: str) -> float:
    return _median(row, f"JC {dtype}") / _median(row, f"JC {dtype}, 2 threads")


def _over_limit(row: dict[str, Any], dtype: str) -> float:
    return _median(row, f"JC {dtype}") / float(row["limit_milliseconds"][dtype]["value and gradient"])


def _verdict(is_met: bool) -> str:
    return "met" if is_met else "**missed**"


def _targets(measured: dict[str, dict[str, Any]]) -> list[str]:
    """What was aimed at on DS1 and DS7, and whether it was reached."""
    text = []
    if "DS1" in measured:
        row = measured["DS1"]
        for dtype, target in TARGETS.items():
            time, ratio = _median(row, f"JC {dtype}"), _over_limit(row, dtype)
            text.append(
                f"Ten DS1 trees, value and gradient, one thread, {dtype}: {time:.2f} ms (fastest "
                f"{_best(row, f'JC {dtype}'):.2f}); target {target} ms: {_verdict(time <= target)}. That is "
                f"{ratio:.1f} times the arithmetic limit; target {TARGET_OVER_LIMIT:.0f}: "
                f"{_verdict(ratio <= TARGET_OVER_LIMIT)}."
            )
    if "DS7" in measured:
        row = measured["DS7"]
        ratio = _speed_up(row, "float64")
        text.append(
            f"Two threads against one on DS7: {ratio:.2f} times as fast in float64, "
            f"{_speed_up(row, 'float32'):.2f} in float32; target {TARGET_THREADS} in float64: "
            f"{_verdict(ratio >= TARGET_THREADS)}. Results do not depend on the number of threads, to the "
            "last bit."
        )
    return text


def _against(rows: list[dict[str, Any]]) -> str:
    """Ratios to the other implementations."""
    textbook = [_median(row, "textbook, JC float64") / _median(row, "JC float64") for row in rows]
    torch = [_median(row, "torch kernel, JC float64") / _median(row, "JC float64") for row in rows]
    return (
        f"In float64 on one thread the kernel is {min(textbook):.0f} to {max(textbook):.0f} times as fast as "
        "a textbook implementation (one tree object at a time, automatic differentiation) and "
        f"{min(torch):.0f} to {max(torch):.0f} times as fast as the torch kernel on the processor."
    )


def _machine(machine: dict[str, Any]) -> str:
    peaks = machine["peak_operations_per_second"]
    return (
        "The limit counts the additions and multiplications of the algorithm, nothing computed twice, and "
        "divides by the measured peak rate of fused multiply-adds: "
        f"{peaks['float64'] / 1e9:.0f} (float64) and {peaks['float32'] / 1e9:.0f} (float32) thousand million "
        f"a second on one core, which reads {machine['memory_bytes_per_second'] / 1e9:.1f} GB a second from "
        "memory. About half of the operations cannot be fused, so that the limit cannot be reached."
    )


def _harm(errors: dict[str, Any]) -> str:
    """The largest errors of float32."""
    nats = {kind: max(e[kind]["max_error_nats"] for e in errors.values()) for kind in ("random", "good")}
    slope = max(e["good"]["max_error_derivative"] for e in errors.values())
    return (
        f"Float32 partials change the log-likelihood of a good tree by at most {nats['good']:.4f} nats and "
        f"of a random tree by at most {nats['random']:.4f}, and a derivative by the logarithm of a branch "
        f"length of a good tree by at most {slope:.1e}, over all data sets."
    )


def _linearity(growth: dict[str, Any]) -> str:
    fits = {name: g["fit"] for name, g in growth.items()}
    each = ", ".join(f"{name} {fit['r_squared']:.4f} ({fit['exponent']:.2f})" for name, fit in fits.items())
    return f"Straight lines through time against size have R² (and power laws the exponent): {each}."


def _times(rows: list[dict[str, Any]], dtype: str) -> Table:
    return Table(
        f"Milliseconds for log-likelihood and all branch derivatives under JC69 in {dtype}, medians (minima) "
        "of many calls taken in turns; one thread unless said. Merged: patterns equal up to a relabelling of "
        "nucleotides count once. The last column is the median over the arithmetic limit.",
        [
            "",
            "taxa",
            "patterns",
            "merged",
            "ten trees",
            "one tree",
            "ten values alone",
            "ten, 2 threads",
            "speed-up",
            "limit",
            "×",
        ],
        [
            [
                row["dataset"],
                f"{row['num_taxa']:,}",
                f"{row['num_patterns']:,}",
                f"{row['num_merged_patterns']:,}",
                f"{_median(row, f'JC {dtype}'):.2f} ({_best(row, f'JC {dtype}'):.2f})",
                f"{_median(row, f'JC {dtype}, one tree'):.3f}",
                f"{_median(row, f'JC {dtype}, value alone'):.2f}",
                f"{_median(row, f'JC {dtype}, 2 threads'):.2f}",
                f"{_speed_up(row, dtype):.2f}",
                f"{row['limit_milliseconds'][dtype]['value and gradient']:.2f}",
                f"{_over_limit(row, dtype):.1f}",
            ]
            for row in rows
        ],
    )


def _comparison(rows: list[dict[str, Any]]) -> Table:
    return Table(
        "Ten trees, value and gradient, JC69, float64, one thread: median milliseconds of the compiled "
        "kernel, the torch kernel and the textbook implementation, and the ratios to the first.",
        ["", "compiled", "torch kernel", "×", "textbook", "×"],
        [
            [
                row["dataset"],
                f"{_median(row, 'JC float64'):.2f}",
                f"{_median(row, 'torch kernel, JC float64'):.0f}",
                f"{_median(row, 'torch kernel, JC float64') / _median(row, 'JC float64'):.0f}",
                f"{_median(row, 'textbook, JC float64'):.0f}",
                f"{_median(row, 'textbook, JC float64') / _median(row, 'JC float64'):.0f}",
            ]
            for row in rows
        ],
    )


def _general(rows: list[dict[str, Any]]) -> Table:
    return Table(
        "Ten trees, value and gradient, by the kernel for any reversible model, one thread unless said: "
        "median milliseconds, and the ratio to the JC69 kernel of the same precision.",
        ["", *(f"{name} (×)" for name in OTHERS), "GTR+G4 float64, 2 threads"],
        [
            [
                row["dataset"],
                *(
                    f"{_median(row, name):.1f} ({_median(row, name) / _median(row, f'JC {name[-7:]}'):.1f})"
                    for name in OTHERS
                ),
                f"{_median(row, 'GTR+G4 float64, 2 threads'):.1f}",
            ]
            for row in rows
        ],
    )


def _errors(errors: dict[str, Any]) -> Table:
    rows = []
    for name, kinds in errors.items():
        for kind, e in kinds.items():
            rows.append(
                [
                    f"{name}, {kind}",
                    f"{e['log_likelihood']:,.0f}",
                    f"{e['max_error_nats']:.5f}",
                    f"{e['rms_error_nats']:.5f}",
                    f"{e['max_error_derivative']:.1e}",
                    f"{e['rms_derivative']:.1f}",
                ]
            )
    return Table(
        "Float32 against float64 on ten trees each: random ones, and the ten most frequent bootstrap "
        "topologies with fitted branch lengths. Errors of the log-likelihood in nats; of the derivatives by "
        "the logarithms of the branch lengths, beside the root mean square of these.",
        [
            "",
            "mean log-likelihood",
            "largest error",
            "rms error",
            "largest error of a derivative",
            "rms derivative",
        ],
        rows,
    )


def _draw_growth(figure: Any, growth: dict[str, Any]) -> None:
    figure.set_size_inches(9, 3.6)
    axes = figure.subplots(1, 2)
    for axis, kind, label in zip(axes, ("taxa", "patterns"), ("taxa", "distinct patterns"), strict=True):
        for dtype, colour in (("float64", "tab:blue"), ("float32", "tab:orange")):
            one = growth[f"{kind} {dtype}"]
            fit = one["fit"]
            axis.plot(one["sizes"], one["milliseconds"], "o", color=colour)
            ends = [0.0, max(one["sizes"])]
            axis.plot(
                ends,
                [fit["intercept"] + fit["slope"] * x for x in ends],
                color=colour,
                label=f"{dtype}, R² = {fit['r_squared']:.4f}",
            )
        axis.set_xlabel(label)
        axis.set_ylabel("ms" if kind == "patterns" else "ms per 1,000 patterns")
        axis.set_xlim(left=0)
        axis.set_ylim(bottom=0)
        axis.legend()
    figure.tight_layout()
