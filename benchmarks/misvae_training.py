"""Claim: within an hour the default MISVAE reaches 85 nats a test image, autoregressive pixels 81.5.

Trains the default model with each decoder as a user does, and estimates the negative log-likelihood of all
test images. A training that was stopped goes on; one that is finished is only evaluated.

    python benchmarks/misvae_training.py [--decoder independent autoregressive] [--samples 1000] [--again]
"""

import argparse
import json
import math
import subprocess
from pathlib import Path
from statistics import fmean
from typing import Any

from _common import RESULTS, save, without_local_paths
from _study import PROGRAM
from misvae import digits

DECODERS = ("independent", "autoregressive")


def run_program(arguments: list[str]) -> dict[str, Any]:
    """What a command of ``vbpi-mix misvae`` prints as JSON.

    Raises:
        SystemExit: The program failed; it has said why.
    """
    command = [*PROGRAM, "misvae", *arguments, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: failed with exit status {done.returncode}")
    return dict(json.loads(done.stdout))


def measure(decoder: str, run: Path, samples: int, threads: int, data_dir: Path | None) -> dict[str, Any]:
    """Train, or go on training, and evaluate.

    Args:
        decoder: Kind of decoder.
        run: The run's directory.
        samples: Importance samples of a test image.
        threads: Threads of training and evaluation.
        data_dir: Folder with the images; None: the program finds them.
    """
    place = [] if data_dir is None else ["--data-dir", str(data_dir)]
    if not (run / "result.json").exists():
        is_new = not (run / "config.toml").exists()
        new = ["--decoder", decoder, "--threads", str(threads), *place]
        run_program(["train", *(new if is_new else ["--resume"]), "--out", str(run)])
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    evaluation = run_program(["evaluate", str(run), "--samples", str(samples), *place])
    measured = {
        "decoder": decoder,
        "training": result,
        "bound_by_epoch": bound_by_epoch(run / "metrics.jsonl"),
        "evaluation": evaluation,
    }
    return without_local_paths(measured, run)


def bound_by_epoch(metrics: Path) -> list[float]:
    """Mean bound of the training images, by epoch, in nats."""
    records = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    epochs: dict[int, list[float]] = {}
    for record in records:
        # A line is about the steps before it: the one at the end of an epoch belongs to that epoch.
        epochs.setdefault(math.ceil(record["epoch"]), []).append(record["bound"])
    return [fmean(bounds) for _, bounds in sorted(epochs.items())]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--decoder", nargs="+", choices=DECODERS, default=list(DECODERS))
    parser.add_argument("--samples", type=int, default=1_000, help="importance samples of an image")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data-dir", type=Path, help="folder with the images")
    parser.add_argument(
        "--work",
        type=Path,
        default=RESULTS.parent / ".study" / "misvae_training",
        metavar="DIR",
        help="folder of the runs, one by decoder",
    )
    parser.add_argument("--again", action="store_true", help="measure again what has been measured")
    chosen = parser.parse_args()
    for decoder in chosen.decoder:
        name = f"misvae_training/{decoder}"
        if chosen.again or not (RESULTS / f"{name}.json").exists():
            data_dir = digits(chosen.data_dir)
            save(name, measure(decoder, chosen.work / decoder, chosen.samples, chosen.threads, data_dir))


if __name__ == "__main__":
    main()
