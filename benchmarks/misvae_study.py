"""Claim: what mixtures of encoders and the estimators A2A, S2A and S2S buy, where the likelihood is one.

Every configuration trains for the same number of epochs, and again for the number of epochs that takes as
long as those of one component, by a calibration of interleaved steps; where both numbers are equal one run
serves for both. All are evaluated on the same test images, with as many importance samples over all
components; the scores of the images are kept, so that differences can be taken image by image. Each run is a
job of its own, as in ``study.py``: what is finished is skipped, what was killed continues.

    python benchmarks/misvae_study.py run [--workers 2] [--epochs 8] [--seeds 0] [--network half]
    python benchmarks/misvae_study.py run --dataset fashion-mnist --only s2a.A20.S1 s2s.A20.S1
    python benchmarks/misvae_study.py run --decoder autoregressive --only a2a.A1.S1 --epochs 40 --images 10000
    python benchmarks/misvae_study.py list [...]

The calibration is kept in ``results/misvae_study/manifest.json``.
"""

import argparse
import json
import math
import shutil
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import tomli_w
from _common import RESULTS, load, save, without_local_paths
from _jobs import work_through
from _study import PROGRAM, start_program
from misvae import digits
from study import start_workers

CONFIGURATIONS = (
    ("a2a", 1, 1),
    ("s2a", 20, 1),
    ("s2s", 20, 1),
    ("s2a", 5, 1),
    ("s2a", 100, 1),
    ("s2s", 20, 2),
    ("s2a", 20, 2),
    ("s2s", 5, 1),
    ("s2s", 100, 1),
    ("s2a", 5, 2),
    ("s2s", 5, 2),
    ("s2a", 100, 2),
    ("s2s", 100, 2),
    ("a2a", 5, 5),
    ("s2a", 20, 5),
    ("s2s", 20, 5),
    ("s2a", 100, 5),
    ("s2s", 100, 5),
)
"""Estimator, A and S, those first that tell most. A2A of 20 or 100 components costs as much as 20 or 100."""

HALF = {
    "encoder_channels": 16,
    "trunk_features": 128,
    "decoder": {"hidden": 128, "features": 32},
}
"""Settings of the network whose layers are half as wide as the default's, the head's hidden layer apart."""

TOTAL_SAMPLES = 200
"""Importance samples of an image over all components."""

STEPS_IN_EPOCH = 500
"""Of the default model: 50,000 training images, 100 in a step."""

CALIBRATION_STEPS = 8
WARM_UP = 2
"""First steps that the calibration leaves out."""

CHECKPOINT_SECONDS = 120
MANIFEST = "misvae_study/manifest"


@dataclass(frozen=True)
class Job:
    """A training and its evaluation.

    Attributes:
        dataset: Name of a data set of images.
        decoder: Kind of decoder.
        estimator: Estimator of the mixture's bound: a2a, s2a or s2s.
        components: A.
        sampled: S.
        epochs: Passes over the training images.
        seed: Seed of the run.
        images: Test images that are evaluated, the first ones.
        network: ``default``, or ``half`` as wide.
    """

    dataset: str
    decoder: str
    estimator: str
    components: int
    sampled: int
    epochs: int
    seed: int
    images: int
    network: str = "default"

    @property
    def family(self) -> str:
        """Decoder and network: what a calibration holds for."""
        return family_of(self.decoder, self.network)

    @property
    def configuration(self) -> str:
        """Estimator, A and S."""
        return name_of(self.estimator, self.components, self.sampled)

    @property
    def name(self) -> str:
        """Name of the job, of its result and of its scratch folder."""
        parts = (self.dataset, self.family, self.configuration, f"e{self.epochs}", f"seed{self.seed}")
        return ".".join(parts)

    def arguments(self, data_dir: Path | None) -> list[str]:
        """Options of ``vbpi-mix misvae train`` for a new run."""
        settings = {
            "dataset": self.dataset,
            "decoder": self.decoder,
            "estimator": self.estimator,
            "components": self.components,
            "sampled": self.sampled,
            "epochs": self.epochs,
            "seed": self.seed,
            "threads": 1,
            "checkpoint-seconds": CHECKPOINT_SECONDS,
        }
        if data_dir is not None:
            settings["data-dir"] = data_dir
        return [part for name, value in settings.items() for part in (f"--{name}", str(value))]


def name_of(estimator: str, components: int, sampled: int) -> str:
    """Name of a configuration."""
    return f"{estimator}.A{components}.S{sampled}"


def family_of(decoder: str, network: str) -> str:
    """Name of a decoder and network."""
    return decoder if network == "default" else f"{decoder}-{network}"


def model_settings(decoder: str, network: str) -> dict[str, Any]:
    """Section ``model`` of a configuration."""
    sizes = HALF if network == "half" else {"decoder": {}}
    return {**sizes, "decoder": {"kind": decoder, **sizes["decoder"]}}


def images_folder(dataset: str, data_dir: Path | None) -> Path | None:
    """Folder with a data set's images; None: the package finds them."""
    return digits(data_dir) if dataset == "mnist" else data_dir


def measure(job: Job, folder: Path, lock: int, data_dir: Path | None) -> dict[str, Any]:
    """Make a run, or the rest of one, evaluate it, and say what it found and took.

    Args:
        job: The run.
        folder: Scratch folder of the job; it may hold a run that was killed.
        lock: Descriptor of the job's claim, which the program shares.
        data_dir: Folder with the images.

    Raises:
        RuntimeError: The program failed; the message ends with what it said.
    """
    run = folder / "run"
    if (run / "config.toml").exists():
        arguments = ["--resume"]
    else:
        folder.mkdir(parents=True, exist_ok=True)
        settings = folder / "network.toml"
        settings.write_text(tomli_w.dumps({"model": model_settings(job.decoder, job.network)}))
        arguments = ["--config", str(settings), *job.arguments(data_dir)]
    took = start_program(
        [*PROGRAM, "misvae", "train", *arguments, "--out", str(run), "--quiet", "--json"], folder, lock
    )
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    measured = {
        **asdict(job),
        **took,
        **{key: result[key] for key in ("num_parameters", "training_seconds", "seconds_per_epoch")},
        **score(run / "checkpoint.pt", job.images, data_dir),
    }
    return without_local_paths(measured, run)


def score(checkpoint: Path, num_images: int, data_dir: Path | None) -> dict[str, Any]:
    """Evaluation of a checkpoint on test images, with the negative log-likelihood of each."""
    import torch

    from vbpi_mix.vae.evaluation import score_images, summarise
    from vbpi_mix.vae.images import load_images
    from vbpi_mix.vae.training import load_model

    torch.set_num_threads(1)
    config, model = load_model(checkpoint)
    images = load_images(config.images.dataset, data_dir, config.images.binarisation_seed).test[:num_images]
    samples = math.ceil(TOTAL_SAMPLES / model.num_components)
    began = time.perf_counter()
    scores = score_images(model, images, samples, torch.Generator().manual_seed(0))
    found = summarise([scores], samples)
    return {
        "negative_log_likelihood": asdict(found.negative_log_likelihood),
        "bound": found.bound.mean,
        "jensen_shannon": found.jensen_shannon.mean,
        "active_components": found.active_components,
        "samples": samples,
        "evaluation_seconds": time.perf_counter() - began,
        "image_negative_log_likelihood": [round(-value, 3) for value in scores.log_likelihood.tolist()],
    }


def calibrate(
    names: list[tuple[str, int, int]], decoder: str, network: str, data_dir: Path | None
) -> dict[str, float]:
    """Median milliseconds of a step by configuration, from steps taken in turn with one thread."""
    import torch

    from vbpi_mix.objectives.estimators import Estimator
    from vbpi_mix.vae.config import MachineConfig, MisvaeConfig, MixtureConfig, ModelConfig
    from vbpi_mix.vae.images import load_images
    from vbpi_mix.vae.training import TrainingState, steps_in_epoch, train

    torch.set_num_threads(1)
    images = load_images("mnist", data_dir, 0).training
    courses, times = [], {}
    for estimator, components, sampled in names:
        config = MisvaeConfig(
            model=ModelConfig.model_validate(model_settings(decoder, network)),
            mixture=MixtureConfig(components=components, sampled=sampled, estimator=Estimator(estimator)),
            machine=MachineConfig(log_every=1),
        )
        name = name_of(estimator, components, sampled)
        courses.append((name, train(config, images, TrainingState.initial(config))))
        times[name] = []
    for _ in range(CALIBRATION_STEPS):
        for name, course in courses:
            began = time.perf_counter()
            next(course)
            times[name].append(1000 * (time.perf_counter() - began))
    assert steps_in_epoch(config, len(images)) == STEPS_IN_EPOCH
    return {name: median(values[WARM_UP:]) for name, values in times.items()}


def plan(chosen: argparse.Namespace) -> list[Job]:
    """The jobs, in the order to do them; calibrates what is not calibrated."""
    (manifest,) = load(RESULTS, f"{MANIFEST}.json").values() or ({},)
    calibration: dict[str, dict[str, float]] = manifest.get("milliseconds_of_step", {})
    family = family_of(chosen.decoder, chosen.network)
    if family not in calibration:
        own = calibrate(list(CONFIGURATIONS), chosen.decoder, chosen.network, digits(chosen.data_dir))
        calibration = {**calibration, family: own}
        save(MANIFEST, {"milliseconds_of_step": calibration, "steps_in_epoch": STEPS_IN_EPOCH})
    times = calibration[family]
    single = times[name_of(*CONFIGURATIONS[0])]
    jobs = []
    for seed in chosen.seeds:
        for configuration in CONFIGURATIONS:
            name = name_of(*configuration)
            if chosen.only and name not in chosen.only:
                continue
            equal_time = max(1, round(chosen.epochs * single / times[name]))
            for epochs in dict.fromkeys((equal_time, chosen.epochs)):
                job = Job(chosen.dataset, chosen.decoder, *configuration, epochs, seed, chosen.images)
                jobs.append(replace(job, network=chosen.network))
    # What takes no longer than one component comes first, for all configurations.
    longest = 1.3 * chosen.epochs * single
    return sorted(jobs, key=lambda job: (job.seed, job.epochs * times[job.configuration] > longest))


def is_done(name: str) -> bool:
    """Whether a job's result is there."""
    return (RESULTS / "misvae_study" / f"{name}.json").exists()


def work(jobs: list[Job], scratch: Path, data_dir: Path | None) -> list[str]:
    """Work through the jobs in this process; names of those that failed."""
    by_name = {job.name: job for job in jobs}

    def do(name: str, lock: int) -> None:
        folder = scratch / name
        job = by_name[name]
        save(f"misvae_study/{name}", measure(job, folder, lock, images_folder(job.dataset, data_dir)))
        shutil.rmtree(folder)

    return work_through(list(by_name), scratch, is_done, do)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "action",
        choices=("run", "work", "list"),
        help="run: in worker processes; work: in this one; list: say what is done",
    )
    parser.add_argument("--dataset", default="mnist", choices=("mnist", "fashion-mnist"))
    parser.add_argument("--decoder", default="independent", choices=("independent", "autoregressive"))
    parser.add_argument("--network", default="default", choices=("default", "half"), help="width of layers")
    names = [name_of(*configuration) for configuration in CONFIGURATIONS]
    parser.add_argument(
        "--only", nargs="+", choices=names, metavar="CONFIGURATION", help="such as s2a.A20.S1"
    )
    parser.add_argument("--epochs", type=int, default=8, help="epochs of a run, and of A=1 at equal time")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--images", type=int, default=1_000, help="test images to evaluate")
    parser.add_argument("--workers", type=int, default=2, help="processes of 'run'")
    parser.add_argument("--data-dir", type=Path, help="folder with the images")
    parser.add_argument(
        "--work",
        type=Path,
        default=RESULTS.parent / ".study" / "misvae",
        metavar="DIR",
        help="scratch folder, which all workers must see",
    )
    return parser.parse_args(arguments)


def main() -> None:
    """Command line."""
    chosen = parse(sys.argv[1:])
    jobs = plan(chosen)
    match chosen.action:
        case "list":
            for job in jobs:
                print("done" if is_done(job.name) else "open", job.name)
        case "work":
            failed = work(jobs, chosen.work, chosen.data_dir)
            if failed:
                sys.exit(f"failed: {' '.join(failed)}; what they said is in {chosen.work}")
        case "run":
            arguments = [str(Path(__file__).resolve()), "work", *sys.argv[2:]]
            sys.exit(start_workers([sys.executable, *arguments], chosen.workers))


if __name__ == "__main__":
    main()
