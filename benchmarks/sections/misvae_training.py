"""Test likelihood of the default MISVAE: from ``misvae_training.py``."""

from pathlib import Path
from typing import Any

from _common import load
from _sections import Section, Table

MAX_NLL = {"independent": 85.0, "autoregressive": 81.5}
"""Nats a test image, by decoder."""

MAX_SECONDS = 3600.0
"""Training time, on two cores."""

SHOWN = (1, 2, 5, 10, 20, 30, 40, 50)
"""Epochs whose bound is shown, besides the last."""


def section(results: Path) -> Section | None:
    """The section, from ``misvae_training/*.json``."""
    found = load(results, "misvae_training/*.json")
    if not found:
        return None
    runs = list(found.values())
    return Section(
        "Test likelihood of the default MISVAE",
        [_finding(run, training_seconds(results, run)) for run in runs],
        [_likelihoods(results, runs), _course(runs)],
        list(found),
    )


def training_seconds(results: Path, run: dict[str, Any]) -> float | None:
    """Epochs times the seconds that one takes with two threads on a quiet machine, by ``misvae.py``."""
    for speed in load(results, "misvae.json").values():
        for measured in speed["measured"]:
            for timed in measured["runs"]:
                same = (timed["decoder"], timed["components"]) == (run["decoder"], 1)
                if same and measured["threads"] == 2:
                    return run["training"]["epochs"] * timed["seconds_per_epoch"]
    return None


def is_met(run: dict[str, Any], seconds: float | None) -> bool:
    """Whether the likelihood asked for is reached, in the time allowed."""
    nll = run["evaluation"]["negative_log_likelihood"]["mean"]
    return nll < MAX_NLL[run["decoder"]] and seconds is not None and seconds <= MAX_SECONDS


def _finding(run: dict[str, Any], seconds: float | None) -> str:
    evaluation = run["evaluation"]
    nll, limit = evaluation["negative_log_likelihood"], MAX_NLL[run["decoder"]]
    time = "" if seconds is None else f", {seconds / 60:.0f} min of training"
    return (
        f"**{run['decoder']} pixels**: {nll['mean']:.2f} nats (standard error {nll['standard_error']:.2f}) "
        f"after {run['training']['epochs']} epochs{time}; asked below {limit} within "
        f"{MAX_SECONDS / 60:.0f} min: {'met' if is_met(run, seconds) else 'missed'}."
    )


def _likelihoods(results: Path, runs: list[dict[str, Any]]) -> Table:
    rows = []
    for run in runs:
        evaluation, training = run["evaluation"], run["training"]
        nll, seconds = evaluation["negative_log_likelihood"], training_seconds(results, run)
        rows.append(
            [
                run["decoder"],
                f"{evaluation['num_parameters']:,}",
                str(training["epochs"]),
                "-" if seconds is None else f"{seconds:.0f}",
                f"{training['training_seconds']:.0f}",
                f"{nll['mean']:.2f} ({nll['standard_error']:.2f})",
                f"{-evaluation['bound']:.2f}",
            ]
        )
    samples = " and ".join(sorted({f"{run['evaluation']['num_samples']:,}" for run in runs}))
    images = " and ".join(sorted({f"{run['evaluation']['num_images']:,}" for run in runs}))
    return Table(
        f"Negative log-likelihood of {images} MNIST test images by {samples} importance samples of each, one "
        "component. Seconds: epochs times those of `misvae.py` (quiet, two threads), and as they passed in "
        "this run, beside whatever else the machine did.",
        [
            "decoder",
            "parameters",
            "epochs",
            "training, s",
            "as they passed",
            "NLL (standard error)",
            "-bound",
        ],
        rows,
    )


def _course(runs: list[dict[str, Any]]) -> Table:
    last = max(len(run["bound_by_epoch"]) for run in runs)
    epochs = [epoch for epoch in SHOWN if epoch < last] + [last]
    rows = [
        [
            str(epoch),
            *(
                f"{-run['bound_by_epoch'][epoch - 1]:.2f}" if epoch <= len(run["bound_by_epoch"]) else "-"
                for run in runs
            ),
        ]
        for epoch in epochs
    ]
    return Table(
        "Minus the mean bound of the training images in an epoch, in nats; lower than it will be while the "
        "weight of the divergence still rises (the first tenth).",
        ["epoch", *(run["decoder"] for run in runs)],
        rows,
    )
