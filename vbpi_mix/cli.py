"""The command line: arguments into configuration and calls. Everything heavy is imported inside the commands.

Results go to standard output, progress and messages to standard error. A user's error is one message and exit
code 2; several runs that have not converged have exit code 3; after a signal it is 128 plus its number.
"""

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from vbpi_mix import _cli_misvae
from vbpi_mix._cli_cache import provide_cache
from vbpi_mix._cli_output import (
    EstimatorName,
    Json,
    Seed,
    check_text,
    open_streams,
    plain_options,
    print_result,
    say,
)

app = typer.Typer(
    name="vbpi-mix",
    help="Variational Bayesian phylogenetic inference with mixtures of subsplit Bayesian networks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


app.add_typer(_cli_misvae.app)


class BranchModelName(StrEnum):
    """Features of branch-length networks."""

    SPLIT = "split"
    PSP = "psp"


class BranchDensityName(StrEnum):
    """Families of branch-length densities."""

    LOGNORMAL = "lognormal"
    SKEWED = "skewed"


class EngineName(StrEnum):
    """What computes."""

    COMPILED = "compiled"
    TORCH = "torch"


class DtypeName(StrEnum):
    """Precisions of the likelihood in training."""

    FLOAT64 = "float64"
    FLOAT32 = "float32"


class RecipeName(StrEnum):
    """Training recipes."""

    PUBLISHED = "published"


class TreeFormatName(StrEnum):
    """Formats of sampled trees."""

    NEXUS = "nexus"
    NEWICK = "newick"


Run = Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a run: --out of 'vbpi-mix run'.")]


def _version(wanted: bool | None) -> None:
    if wanted:
        from vbpi_mix import __version__

        typer.echo(f"vbpi-mix {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool | None,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit."),
    ] = None,
) -> None:
    """Variational Bayesian phylogenetic inference with mixtures of subsplit Bayesian networks."""


@app.command()
def run(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Directory for everything that the run writes.")],
    alignment: Annotated[
        Path | None, typer.Argument(help="Alignment: FASTA, PHYLIP, NEXUS or Clustal, also gzipped.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(metavar="NAME", help="Bundled data set, DS1 to DS8.")] = None,
    support: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Trees that the support is built from: Newick, NEXUS or a table. "
            "[default: bundled trees, or those made by the best means at hand]",
        ),
    ] = None,
    grow_support: Annotated[
        bool | None,
        typer.Option(
            "--grow-support/--no-grow-support",
            help="Add topologies to the support where posterior mass presses against its edge. "
            "[default: for alignments, not for bundled data sets]",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Substitution model, as IQ-TREE names it: HKY+F, GTR+FO+I+G4, K80{2.5}. "
            "[default: GTR+F+G4; JC for --dataset]",
        ),
    ] = None,
    components: Annotated[
        int | None,
        typer.Option(
            metavar="A",
            help="Mixture components. [default: 1]",
        ),
    ] = None,
    sampled: Annotated[
        int | None,
        typer.Option(
            metavar="S",
            help="Components drawn in a step. [default: A for a2a, else 1]",
        ),
    ] = None,
    estimator: Annotated[
        EstimatorName | None,
        typer.Option(
            case_sensitive=False,
            help="Estimator of the mixture's bound. [default: a2a]",
        ),
    ] = None,
    particles: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            help="Particles of each sampled component. [default: 10]",
        ),
    ] = None,
    iterations: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Training steps. [default: rounds of 3000, 6000, ...; 15000 of a single run]",
        ),
    ] = None,
    branch_model: Annotated[
        BranchModelName | None,
        typer.Option(
            case_sensitive=False,
            help="Features of branch lengths. [default: psp]",
        ),
    ] = None,
    branch_density: Annotated[
        BranchDensityName | None,
        typer.Option(
            case_sensitive=False,
            help="Density of branch lengths. [default: skewed]",
        ),
    ] = None,
    topology_rate: Annotated[
        float | None,
        typer.Option(
            metavar="RATE",
            help="First learning rate of topologies. [default: 0.02]",
        ),
    ] = None,
    branch_rate: Annotated[
        float | None,
        typer.Option(
            metavar="RATE",
            help="First learning rate of branch lengths. [default: 0.02]",
        ),
    ] = None,
    recipe: Annotated[
        RecipeName | None,
        typer.Option(
            case_sensitive=False, help="Settings to use instead of the defaults; other options override them."
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Settings from a config.toml; other options override them."),
    ] = None,
    runs: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Independent runs, whose agreement is judged. [default: 2]",
        ),
    ] = None,
    max_rounds: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Most rounds of training while several runs have not converged; one with --iterations. "
            "[default: 4]",
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Most time for everything, such as 90s, 10m, 1h30m."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            metavar="INT",
            help="Seed of all random numbers; further runs have those that follow. [default: 0]",
        ),
    ] = None,
    engine: Annotated[
        EngineName | None,
        typer.Option(
            case_sensitive=False,
            help="What computes. [default: compiled]",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Device of the engine torch: cpu, cuda. [default: cpu]",
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            metavar="INT",
            help="Threads of the likelihood, or of torch. [default: all available cores]",
        ),
    ] = None,
    dtype: Annotated[
        DtypeName | None,
        typer.Option(
            case_sensitive=False,
            help="Precision of the likelihood in training. [default: float32]",
        ),
    ] = None,
    repeats: Annotated[
        int | None,
        typer.Option(
            metavar="INT",
            help="Repeats of the marginal likelihood. [default: 100, or as few as do for several runs]",
        ),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            metavar="INT",
            help="Likelihood evaluations of a repeat, over all components. [default: 1000]",
        ),
    ] = None,
    refit: Annotated[
        bool | None,
        typer.Option(
            "--refit/--no-refit",
            help="Refit topologies after training. [default: refit]",
        ),
    ] = None,
    posterior_samples: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Trees written to posterior.run1.t and posterior.run2.t together. [default: 10000]",
        ),
    ] = None,
    checkpoint_seconds: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Time between checkpoints. [default: 30]",
        ),
    ] = None,
    log_every: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Iterations between lines of metrics.jsonl. [default: 25]",
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in DIR.")] = False,
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="Write the page report.html. [default: report]")
    ] = True,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    json: Json = False,
) -> None:
    """Approximate the posterior of an alignment, or of a bundled data set.

    Makes two independent runs, combines them, and says whether to believe the result: exit code 0 if so, 3 if
    not. A single run cannot tell, and has exit code 0.

    Writes to DIR: result.json (marginal likelihood, bounds, diagnostics), posterior.run1.t, posterior.run1.p,
    posterior.run2.t, posterior.run2.p, topologies.trprobs, consensus.con.tre, consensus.nwk, ccd_map.tre,
    mcc.tre and sbn_map.tre (trees for other programs), splits.tsv and credible_sets.tsv, config.toml,
    metrics.jsonl and checkpoint.pt, and report.html, a page with all of it for people. With several runs
    metrics.jsonl and checkpoint.pt are in DIR/run1, DIR/run2 and so on.
    """
    _limit_libraries(threads)
    from vbpi_mix import _cli_report, _cli_runs
    from vbpi_mix._cli_config import parse_duration
    from vbpi_mix._cli_training import InterruptedRunError

    options = {
        "alignment": alignment,
        "dataset": dataset,
        "support": support,
        "model": model,
        "grow_support": grow_support,
        "components": components,
        "sampled": sampled,
        "estimator": estimator,
        "particles": particles,
        "iterations": iterations,
        "branch_model": branch_model,
        "branch_density": branch_density,
        "topology_rate": topology_rate,
        "branch_rate": branch_rate,
        "runs": runs,
        "max_rounds": max_rounds,
        "budget": None if budget is None else parse_duration(budget),
        "seed": seed,
        "engine": engine,
        "device": device,
        "threads": threads,
        "dtype": dtype,
        "repeats": repeats,
        "samples": samples,
        "refit": refit,
        "posterior_samples": posterior_samples,
        "checkpoint_seconds": checkpoint_seconds,
        "log_every": log_every,
    }
    try:
        result = _cli_runs.run(plain_options(options), out, resume, recipe, config, quiet)
    except InterruptedRunError as error:
        raise typer.Exit(128 + error.signal_number) from None
    if report:
        from vbpi_mix import _cli_page

        _cli_page.report_after_run(out, resume)
    print_result(result.model_dump(mode="json") if json else _cli_report.run_report(result, out))
    _warn(result.num_draws, result.ess, result.pareto_k)
    if result.converged is False and result.runs:
        raise typer.Exit(3)


@app.command()
def loglik(
    data: Annotated[str, typer.Argument(metavar="ALIGNMENT|DATASET", help="Alignment, or DS1 to DS8.")],
    tree: Annotated[str, typer.Argument(help="File with one tree, or its Newick text.")],
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Substitution model with fixed parameters, such as K80{2.5}+G4{0.5}."
        ),
    ] = "JC",
    gradient: Annotated[bool, typer.Option("--gradient", help="Add the derivative by branch.")] = False,
    json: Json = False,
) -> None:
    """Print the log-likelihood of a tree with branch lengths, in nats."""
    from vbpi_mix import _cli_commands, _cli_report

    result = _cli_commands.log_likelihood(data, tree, gradient, model)
    print_result(result if json else _cli_report.likelihood_report(result))


@app.command()
def evaluate(
    run: Run,
    repeats: Annotated[
        int | None,
        typer.Option(
            min=2,
            metavar="INT",
            help="Repeats of the marginal likelihood. [default: the run's]",
        ),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="INT",
            help="Likelihood evaluations of a repeat, over all components. [default: the run's]",
        ),
    ] = None,
    per_component: Annotated[
        bool,
        typer.Option("--per-component", help="Let every component have so many samples, as the literature."),
    ] = False,
    seed: Seed = None,
    update: Annotated[
        bool,
        typer.Option(
            "--update",
            help="Make the run's posterior files and result.json anew from these draws: more repeats, "
            "a better posterior.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Estimate the marginal likelihood, bounds and diagnostics anew from a run's trained mixture."""
    from vbpi_mix import _cli_commands, _cli_report

    estimates = _cli_commands.evaluate(run, repeats, samples, per_component, seed, update)
    if update:
        from vbpi_mix import _cli_page

        _cli_page.update_report(run)
    print_result(estimates.model_dump(mode="json") if json else _cli_report.estimates_report(estimates))


@app.command()
def compare(
    run: Run,
    reference: Annotated[
        Path,
        typer.Option(metavar="FILE", help="Reference posterior: trees or topologies with probabilities."),
    ],
    burn_in: Annotated[
        float,
        typer.Option(
            min=0.0, max=0.99, metavar="SHARE", help="Share of a Markov chain's trees to leave out."
        ),
    ] = 0.0,
    json: Json = False,
) -> None:
    """Compare a run's posterior over topologies with a reference."""
    from vbpi_mix import _cli_commands, _cli_report

    result = _cli_commands.compare(run, reference, burn_in)
    print_result(result if json else _cli_report.comparison_report(result))


@app.command()
def report(
    run: Run,
    reference: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Trees of another analysis to compare with, such as MrBayes' .t or BEAST's .trees; may be "
            "repeated for several runs of it.",
        ),
    ] = None,
    burn_in: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=0.99,
            metavar="SHARE",
            help="Share of each reference's trees to leave out. [default: 0.25, where they are not weighted]",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File to write; must be new. [default: report.html in RUN]"),
    ] = None,
) -> None:
    """Write the page of a finished run: verdict, tree, clades, parameters, diagnostics, methods to paste."""
    from vbpi_mix import _cli_page

    print_result(str(_cli_page.report(run, reference or [], burn_in, out)))


@app.command()
def sample(
    run: Run,
    num_trees: Annotated[int, typer.Option("-n", "--num-trees", min=1, metavar="N", help="Trees.")] = 1000,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File to write; must be new. [default: standard output]",
        ),
    ] = None,
    format: Annotated[
        TreeFormatName, typer.Option(case_sensitive=False, help="Format of the trees.")
    ] = TreeFormatName.NEXUS,
    seed: Seed = None,
    json: Json = False,
) -> None:
    """Draw trees from the posterior, importance-resampled from the trained mixture's draws."""
    from vbpi_mix import _cli_commands

    trees = _cli_commands.sample(run, num_trees, seed)
    if trees.summary["ess"] < num_trees:
        say(f"Note: the trees carry as much information as {trees.summary['ess']:.0f} independent ones.\n")
    if json:
        print_result({**trees.summary, "trees": trees.newick}, out)
    else:
        print_result(trees.nexus if format is TreeFormatName.NEXUS else "\n".join(trees.newick), out)
    _warn(trees.summary["num_draws"], trees.summary["ess"], trees.summary["pareto_k"])


@app.command()
def datasets(json: Json = False) -> None:
    """List the bundled data sets."""
    from vbpi_mix import _cli_commands, _cli_report

    content = _cli_commands.list_datasets()
    print_result(content if json else _cli_report.datasets_report(content))


def _limit_libraries(threads: int | None) -> None:
    """Let libraries of linear algebra, which are yet to be loaded, use no more threads than the run."""
    if threads is not None:
        for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ.setdefault(name, str(threads))


def _warn(num_draws: int, ess: float, pareto_k: float | None) -> None:
    """Say on standard error that a posterior is unreliable, if it is."""
    from vbpi_mix.results.diagnostics import Reliability

    reliability = Reliability(num_draws, ess, pareto_k)
    if not reliability.is_good:
        say(f"{reliability}; train longer, or with more components\n")


def main() -> None:
    """Run the command line: the entry point ``vbpi-mix``."""
    import logging

    from vbpi_mix.errors import NO_ROOM, VbpiMixError

    open_streams()
    provide_cache()
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        check_text(sys.argv)
        app()
    except VbpiMixError as error:
        say(f"Error: {error}\n")
        sys.exit(2)
    except MemoryError as error:
        reason = str(error) or "some could not be had"
        say(f"Error: too little memory: {reason}; take another machine, fewer --samples or --components\n")
        sys.exit(2)
    except OSError as error:  # a file that cannot be read, a full disk
        if error.filename is None and error.errno not in NO_ROOM:
            raise
        place = error.filename or "standard output, or a temporary file (in the folder TMPDIR)"
        say(f"Error: {place}: {error.strerror}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
