"""Claim: an epoch of the default MISVAE takes at most 60 s on two cores, and components cost little.

Times single training steps of several models on MNIST, one of each in turn, so that whatever else the machine
does meets all of them alike. An epoch's seconds are the median step times the steps of an epoch. Each number
of threads is measured in a process of its own, in which waiting threads sleep, as in ``vbpi-mix misvae``.

    python benchmarks/misvae.py [--rounds 60] [--threads 2 1] [--data-dir DIR] [--again]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from _common import RESULTS, save

CONFIGURATIONS = (
    ("independent", "s2a", 1, 1),
    ("independent", "s2a", 100, 1),
    ("independent", "s2s", 100, 1),
    ("autoregressive", "s2a", 1, 1),
)
"""Decoder, estimator, A and S."""

WARM_UP = 5
"""First rounds that do not count."""


def digits(data_dir: Path | None) -> Path | None:
    """Folder with MNIST: the given one, else that of the reference data, else None (the cache)."""
    reference = os.environ.get("VBPI_MIX_REFERENCE")
    return data_dir or (Path(reference) / "mnist" if reference else None)


def measure(num_rounds: int, threads: int, data_dir: Path | None) -> dict[str, Any]:
    """Step times of all configurations, interleaved, in this process."""
    import torch

    from vbpi_mix.objectives.estimators import Estimator
    from vbpi_mix.vae.config import MachineConfig, MisvaeConfig, MixtureConfig, ModelConfig
    from vbpi_mix.vae.images import load_images
    from vbpi_mix.vae.training import TrainingState, steps_in_epoch, train

    torch.set_num_threads(threads)
    images = load_images("mnist", data_dir, 0).training
    runs, courses = [], []
    for decoder, estimator, components, sampled in CONFIGURATIONS:
        config = MisvaeConfig(
            model=ModelConfig.model_validate({"decoder": {"kind": decoder}}),
            mixture=MixtureConfig(components=components, sampled=sampled, estimator=Estimator(estimator)),
            machine=MachineConfig(threads=threads, log_every=1),
        )
        state = TrainingState.initial(config)
        courses.append(train(config, images, state))
        runs.append(
            {
                "decoder": decoder,
                "estimator": estimator,
                "components": components,
                "sampled": sampled,
                "num_parameters": state.model.num_parameters(),
                "batch_size": config.optimisation.batch_size,
                "steps_in_epoch": steps_in_epoch(config, len(images)),
                "milliseconds": [],
            }
        )
    for number in range(WARM_UP + num_rounds):
        for run, course in zip(runs, courses, strict=True):
            began = time.perf_counter()
            next(course)
            if number >= WARM_UP:
                run["milliseconds"].append(round(1000 * (time.perf_counter() - began), 3))
    for run in runs:
        run["seconds_per_epoch"] = statistics.median(run["milliseconds"]) * run["steps_in_epoch"] / 1000
    return {"threads": threads, "runs": runs}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=60, help="steps of each model")
    parser.add_argument("--threads", nargs="+", type=int, default=[2, 1])
    parser.add_argument("--data-dir", type=Path, help="folder with MNIST")
    parser.add_argument("--again", action="store_true", help="measure again what has been measured")
    parser.add_argument("--here", action="store_true", help="measure in this process and print")
    chosen = parser.parse_args()
    folder = digits(chosen.data_dir)
    if chosen.here:
        print(json.dumps(measure(chosen.rounds, chosen.threads[0], folder)))
        return
    if not chosen.again and (RESULTS / "misvae.json").exists():
        return
    measured = []
    for threads in chosen.threads:
        command = [sys.executable, __file__, "--here", "--rounds", str(chosen.rounds)]
        command += ["--threads", str(threads), *(["--data-dir", str(folder)] if folder else [])]
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
        printed = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        measured.append(json.loads(printed.stdout))
    save("misvae", {"rounds": chosen.rounds, "measured": measured})


if __name__ == "__main__":
    main()
