"""The commands ``vbpi-mix misvae``: arguments into configuration and calls, as in ``cli``."""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from vbpi_mix._cli_output import EstimatorName, Json, Seed, plain_options, print_result

app = typer.Typer(
    name="misvae",
    help="Autoencoders of binary images with mixtures of encoders (MISVAE).",
    no_args_is_help=True,
    rich_markup_mode=None,
)


class ImagesName(StrEnum):
    """Data sets of images."""

    MNIST = "mnist"
    FASHION_MNIST = "fashion-mnist"


class DecoderName(StrEnum):
    """Likelihoods of images."""

    INDEPENDENT = "independent"
    AUTOREGRESSIVE = "autoregressive"


class PartName(StrEnum):
    """Parts of a data set with fixed pixels."""

    TEST = "test"
    VALIDATION = "validation"


Run = Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a run: --out of 'misvae train'.")]
DataDir = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder with the data set's IDX files, gzipped or not. "
        "[default: that of a Debian package, else a cache filled from the network]",
    ),
]
Device = Annotated[
    str | None, typer.Option(metavar="NAME", help="Device that computes: cpu, cuda. [default: the run's]")
]


def wait_passively() -> None:
    """Let waiting threads of torch sleep, unless the environment says how they wait.

    Spinning ones take the cores from whatever else runs. OpenMP reads this when torch is first imported.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@app.command()
def train(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Directory for everything that the run writes.")],
    dataset: Annotated[
        ImagesName | None, typer.Option(case_sensitive=False, help="Images. [default: mnist]")
    ] = None,
    data_dir: DataDir = None,
    decoder: Annotated[
        DecoderName | None,
        typer.Option(
            case_sensitive=False, help="Pixels independent given z, or also on others. [default: independent]"
        ),
    ] = None,
    components: Annotated[
        int | None, typer.Option(metavar="A", help="Mixture components. [default: 1]")
    ] = None,
    sampled: Annotated[
        int | None,
        typer.Option(metavar="S", help="Components drawn in a step. [default: A for a2a, else 1]"),
    ] = None,
    estimator: Annotated[
        EstimatorName | None,
        typer.Option(case_sensitive=False, help="Estimator of the mixture's bound. [default: s2a]"),
    ] = None,
    particles: Annotated[
        int | None,
        typer.Option(metavar="L", help="Importance samples of each sampled component. [default: 1]"),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(metavar="N", help="Passes over the training images. [default: 50]")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(metavar="INT", help="Images of a step. [default: 100]")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(metavar="RATE", help="First learning rate. [default: 0.002]")
    ] = None,
    warm_up: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Share of the steps in which the divergence from the prior gets its weight. [default: 0.1]",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Settings from a config.toml; other options override them."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="INT", help="Seed of all random numbers. [default: 0]")
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="Device that computes: cpu, cuda. [default: cpu]")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(metavar="INT", help="Threads of torch. [default: all available cores]")
    ] = None,
    checkpoint_seconds: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Time between checkpoints. [default: 30]")
    ] = None,
    log_every: Annotated[
        int | None, typer.Option(metavar="N", help="Steps between lines of metrics.jsonl. [default: 20]")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in DIR.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    json: Json = False,
) -> None:
    """Train an autoencoder with a mixture of encoders.

    Writes to DIR: config.toml, metrics.jsonl, checkpoint.pt and, at the end, result.json.
    """
    options = {
        "dataset": dataset,
        "data_dir": data_dir,
        "decoder": decoder,
        "components": components,
        "sampled": sampled,
        "estimator": estimator,
        "particles": particles,
        "epochs": epochs,
        "batch_size": batch_size,
        "rate": rate,
        "warm_up": warm_up,
        "seed": seed,
        "device": device,
        "threads": threads,
        "checkpoint_seconds": checkpoint_seconds,
        "log_every": log_every,
    }
    wait_passively()
    from vbpi_mix import _cli_misvae_train
    from vbpi_mix._cli_training import InterruptedRunError

    try:
        result = _cli_misvae_train.run(plain_options(options), out, resume, config, quiet)
    except InterruptedRunError as error:
        raise typer.Exit(128 + error.signal_number) from None
    print_result(result if json else _cli_misvae_train.report(result, out))


@app.command()
def evaluate(
    run: Run,
    samples: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="L",
            help="Importance samples of each component for each image. [default: 1000 / A, rounded up]",
        ),
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=2, metavar="N", help="Only the first N images. [default: all 10000]")
    ] = None,
    part: Annotated[PartName, typer.Option(case_sensitive=False, help="Images.")] = PartName.TEST,
    data_dir: DataDir = None,
    device: Device = None,
    seed: Seed = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    json: Json = False,
) -> None:
    """Estimate the negative log-likelihood of test images, and how much the components differ."""
    wait_passively()
    from vbpi_mix import _cli_misvae_commands

    result = _cli_misvae_commands.evaluate(run, samples, images, str(part), data_dir, device, seed, quiet)
    print_result(result if json else _cli_misvae_commands.evaluation_report(result))


@app.command()
def sample(
    run: Run,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="PNG file to write; must be new. [default: samples.png in RUN]"),
    ] = None,
    images: Annotated[int, typer.Option(min=1, max=100, metavar="N", help="Test images: rows.")] = 10,
    shown: Annotated[
        int, typer.Option(min=1, max=100, metavar="N", help="Components to show, at most: columns.")
    ] = 10,
    prior: Annotated[
        int, typer.Option(min=0, max=100, metavar="N", help="Samples of the prior in a row: columns.")
    ] = 5,
    data_dir: DataDir = None,
    device: Device = None,
    seed: Seed = None,
) -> None:
    """Draw a grid of images: originals, reconstructions by component, and samples of the prior."""
    wait_passively()
    from vbpi_mix import _cli_misvae_commands

    print_result(_cli_misvae_commands.sample(run, out, images, shown, prior, data_dir, device, seed))
