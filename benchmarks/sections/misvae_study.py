"""What mixtures of encoders buy where the likelihood is one: from ``misvae_study.py``."""

import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from _common import load
from _sections import Section, Table
from misvae_study import family_of, name_of

Run = dict[str, Any]
CERTAIN = 2.0
"""Standard errors of a difference beyond which it counts."""

EQUAL = 1.2
"""Factor within which training times count as equal."""


@dataclass(frozen=True, order=True)
class Group:
    """What can be compared: data set, decoder, network, seed."""

    dataset: str
    decoder: str
    network: str
    seed: int

    @property
    def name(self) -> str:
        """Name in captions."""
        network = "" if self.network == "default" else f", network {self.network} as wide"
        return f"{self.dataset}, {self.decoder} pixels{network}, seed {self.seed}"

    @property
    def family(self) -> str:
        """Decoder and network, as the calibration names them."""
        return family_of(self.decoder, self.network)


def section(results: Path) -> Section | None:
    """The section, from ``misvae_study/*.json``."""
    found = {path: run for path, run in load(results, "misvae_study/*.json").items() if "bound" in run}
    if not found:
        return None
    calibration = _calibration(results)
    groups: dict[Group, list[Run]] = defaultdict(list)
    for run in found.values():
        group = Group(run["dataset"], run["decoder"], run["network"], run["seed"])
        run["seconds"] = run["epochs"] * calibration[group.family][_key(run)]
        groups[group].append(run)
    texts, parts = [], []
    for group, runs in sorted(groups.items()):
        ordered = sorted(runs, key=lambda r: (r["components"], r["estimator"], r["sampled"], r["epochs"]))
        texts += _findings(group, ordered)
        parts.append(_table(group, ordered))
    texts += _between_seeds(list(found.values()))
    return Section("Mixtures of encoders on images", texts, parts, list(found))


def _between_seeds(runs: list[Run]) -> list[str]:
    """How far runs are apart that differ by their seed alone: what differences of others are worth."""
    alike: dict[tuple[Any, ...], list[Run]] = defaultdict(list)
    for run in runs:
        alike[run["dataset"], run["decoder"], run["network"], _key(run), run["epochs"]].append(run)
    ranges = {
        f"{_name(same[0])} ({same[0]['dataset']}, {same[0]['epochs']} epochs)": max(map(_nll, same))
        - min(map(_nll, same))
        for same in alike.values()
        if len(same) > 1
    }
    if not ranges:
        return []
    found = ", ".join(f"{difference:.2f} of {name}" for name, difference in sorted(ranges.items()))
    return [
        f"**Between seeds** the negative log-likelihood differs by {found}: errors in the tables are those "
        "of the images alone, and a difference no larger than that of two seeds is no finding."
    ]


def _calibration(results: Path) -> dict[str, dict[str, float]]:
    """Seconds of an epoch by decoder and network, and configuration, one thread, from steps taken in turn."""
    (manifest,) = load(results, "misvae_study/manifest.json").values()
    return {
        decoder: {name: manifest["steps_in_epoch"] * time / 1000 for name, time in times.items()}
        for decoder, times in manifest["milliseconds_of_step"].items()
    }


def _key(run: Run) -> str:
    """Name of a configuration in the calibration."""
    return name_of(run["estimator"], run["components"], run["sampled"])


def _name(run: Run) -> str:
    if run["components"] == 1:
        return "A=1"
    return f"{run['estimator'].upper()}, A={run['components']}, S={run['sampled']}"


def _nll(run: Run) -> float:
    return run["negative_log_likelihood"]["mean"]


def difference(run: Run, other: Run) -> tuple[float, float]:
    """Mean of a run's negative log-likelihoods minus another's, and its standard error, image by image."""
    pairs = zip(run["image_negative_log_likelihood"], other["image_negative_log_likelihood"], strict=False)
    differences = [own - theirs for own, theirs in pairs]
    return fmean(differences), stdev(differences) / math.sqrt(len(differences))


def single_of(run: Run, runs: list[Run], is_at_equal_time: bool) -> Run | None:
    """The run of one component with which a run is to be compared; None where it is missing."""
    singles = [r for r in runs if r["components"] == 1]
    if not is_at_equal_time:
        return next((r for r in singles if r["epochs"] == run["epochs"]), None)
    near = [r for r in singles if 1 / EQUAL < r["seconds"] / run["seconds"] < EQUAL]
    return min(near, key=lambda r: abs(r["seconds"] - run["seconds"]), default=None)


def _findings(group: Group, runs: list[Run]) -> list[str]:
    best = min(runs, key=_nll)
    text = (
        f"**{group.name}**: the lowest negative log-likelihood is {_nll(best):.2f} nats "
        f"(standard error {best['negative_log_likelihood']['standard_error']:.2f}), of {_name(best)} after "
        f"{best['epochs']} epochs."
    )
    for is_at_equal_time, what in ((False, "epochs"), (True, "training time")):
        counts = {"better": 0, "worse": 0, "the same within the error": 0}
        for run in runs:
            single = single_of(run, runs, is_at_equal_time)
            if run["components"] > 1 and single is not None:
                mean, error = difference(run, single)
                certain = abs(mean) > CERTAIN * error
                key = "the same within the error" if not certain else "better" if mean < 0 else "worse"
                counts[key] += 1
        if any(counts.values()):
            text += f" Against one component at equal {what}: " + ", ".join(
                f"{number} {verdict}" for verdict, number in counts.items() if number
            )
            text += " (mixtures; more than two standard errors of the difference image by image)."
    return [text]


def _against(run: Run, runs: list[Run], is_at_equal_time: bool) -> str:
    single = single_of(run, runs, is_at_equal_time)
    if run["components"] == 1 or single is None:
        return "-"
    mean, error = difference(run, single)
    return f"{mean:+.2f} ({error:.2f})"


def _table(group: Group, runs: list[Run]) -> Table:
    rows = [
        [
            _name(run),
            str(run["epochs"]),
            f"{run['num_parameters']:,}",
            f"{run['seconds'] / run['epochs']:.1f}",
            f"{run['seconds']:.0f}",
            f"{_nll(run):.2f} ({run['negative_log_likelihood']['standard_error']:.2f})",
            _against(run, runs, is_at_equal_time=False),
            _against(run, runs, is_at_equal_time=True),
            f"{-run['bound']:.2f}",
            f"{run['active_components']:.2f}",
        ]
        for run in runs
    ]
    return Table(
        f"{group.name}: negative log-likelihood of {len(runs[0]['image_negative_log_likelihood']):,} test "
        "images (standard error over them), its difference from one component image by image, and minus the "
        "bound of one sample; nats. Seconds are steps times those of a calibration in which all took turns, "
        "one thread.",
        [
            "model",
            "epochs",
            "parameters",
            "s / epoch",
            "training, s",
            "NLL",
            "at equal epochs",
            "at equal time",
            "-bound",
            "active components",
        ],
        rows,
    )
