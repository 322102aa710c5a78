"""Content of ``result.json``: what a run found, how far to trust it, and what it was made with."""

import math
from pathlib import Path

import numpy as np
from jaxtyping import Float64
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator

from vbpi_mix.errors import RunDirectoryError
from vbpi_mix.results import correction, diagnostics, evaluation
from vbpi_mix.results.convergence import Criterion, Verdict
from vbpi_mix.results.correction import CorrectedPosterior
from vbpi_mix.results.draws import PosteriorDraws
from vbpi_mix.results.evaluation import MarginalLogLikelihood
from vbpi_mix.results.posterior_summary import LEVELS, CredibleSet, credible_sets
from vbpi_mix.results.refit import RefitChoice
from vbpi_mix.results.run_directory import to_json, write_text
from vbpi_mix.training.growth import GrowthRound
from vbpi_mix.trees.summaries import highest_density_interval


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ComponentsSummary(_Frozen):
    """What each component of the mixture contributes (`diagnostics.ComponentBalance`)."""

    weight_share: list[float]
    ess: list[float]
    topology_entropy: list[float]

    @model_validator(mode="after")
    def _have_one_value_each(self) -> "ComponentsSummary":
        if not len(self.weight_share) == len(self.ess) == len(self.topology_entropy):
            raise ValueError("expected as many values of each kind as there are components")
        return self


class CcdSummary(_Frozen):
    """The conditional clade distribution of the corrected posterior; entropy and logarithms in nats."""

    entropy: float
    """Entropy, exact."""
    log_num_topologies: float
    """Log of the number of topologies in it."""
    map_probability: float
    """Probability of its most probable topology."""


class TopologiesSummary(_Frozen):
    """The topologies among the evaluation's draws."""

    distinct: int
    """Number of distinct topologies drawn."""
    drawn_mass: float
    """Their exact probability under the mixture."""
    entropy: float
    """Entropy of the mixture's distribution of topologies, in nats."""
    correction: correction.CorrectionMethod
    """How their posterior probabilities were estimated."""
    credible_sets: list[CredibleSet]
    """The smallest sets of topologies that hold 50, 90, 95 and 99% of the corrected posterior."""
    ccd: CcdSummary

    @field_validator("credible_sets")
    @classmethod
    def _has_all_levels(cls, sets: list[CredibleSet]) -> list[CredibleSet]:
        if [one.level for one in sets] != list(LEVELS):
            raise ValueError(f"expected credible sets of the levels {', '.join(map(str, LEVELS))}")
        return sets


class Summary(_Frozen):
    """A number under the corrected posterior."""

    mean: float
    sd: float
    median: float
    hpd95: tuple[float, float]
    """The shortest interval that holds 95% of it."""


class Estimates(_Frozen):
    """What importance draws tell, in nats where nothing else is said."""

    marginal_log_likelihood: MarginalLogLikelihood
    lower_bound_1: float
    """Bound with one sample a component (MISELBO)."""
    lower_bound_10: float
    """Bound with ten samples a component."""
    jensen_shannon: float
    """Jensen-Shannon divergence of the components, between 0 and log A."""
    pareto_k: float | None
    """Shape of the weights' upper tail: below 0.7 is good. None: all weights equal, or too few draws."""
    ess: float
    """Effective sample size of the importance draws."""
    ess_percent: float
    """The same in percent of the draws."""
    num_draws: int
    """Importance draws, over all components."""
    components: ComponentsSummary
    topologies: TopologiesSummary
    tree_length: Summary
    """Sum of the branch lengths, in expected substitutions per site."""
    model: dict[str, Summary]
    """Free parameters of the substitution model, by their names in the ``.p`` files."""


class SupportGrowth(_Frozen):
    """How the support was checked against the posterior, and grown; probabilities are rough estimates."""

    rounds: list[GrowthRound]
    """Rounds of growth, each with the posterior probability just outside before it."""
    mass_outside: float
    """Posterior probability just outside the support at the end."""
    is_enough: bool
    """Whether that is no more than was asked for."""


class Seconds(_Frozen):
    """Wall-clock time of the stages of a run."""

    support: float
    training: float
    evaluation: float


class Provenance(_Frozen):
    """What a run was made from and with."""

    command: list[str]
    data: str
    """Data set, or alignment file."""
    data_sha256: str
    """Of the taxa, site patterns and pattern weights."""
    model: str
    """Name of the substitution model."""
    support: str
    """Where the support's trees come from."""
    num_taxa: int
    num_sites: int
    num_patterns: int
    num_parameters: int
    """Logits of a subsplit network."""
    device: str
    threads: int
    platform: str


class MemberSummary(_Frozen):
    """One of several runs that are combined; all of it is in the ``result.json`` of its own directory."""

    directory: str
    """Its directory's name."""
    seed: int
    iterations: int
    pareto_k: float | None
    ess: float
    log_marginal_likelihood: float
    """Pooled over all its draws, in nats."""
    standard_error: float
    """Of that, in nats."""


class RunResult(Estimates):
    """All of ``result.json``, of a single run or of several that are combined."""

    refit: RefitChoice | None
    """Which refit of the subsplit networks was kept; None where none was asked for."""
    support_growth: SupportGrowth | None = None
    """How the support was checked and grown; None where that was not asked for. Of several runs, in that with
    most posterior mass outside its support."""
    seconds: Seconds
    iterations: int
    ms_per_iteration: float
    """Training time of one iteration, in milliseconds: the median over the lines of metrics.jsonl, or the
    mean where lines are missing."""
    seed: int
    """Of the first run, where there are several."""
    versions: dict[str, str]
    provenance: Provenance
    converged: bool | None = None
    """Whether to believe the result; None where a single run meets all criteria that it can meet alone."""
    verdict: str = ""
    """The same in words, with the reason."""
    criteria: list[Criterion] = []
    """What the verdict rests on."""
    runs: list[MemberSummary] = []
    """The runs that are combined; none where there is one."""

    @field_validator("versions")
    @classmethod
    def _has_own_version(cls, versions: dict[str, str]) -> dict[str, str]:
        if "vbpi-mix" not in versions:
            raise ValueError("expected the version of vbpi-mix among those of packages")
        return versions

    def judged(self, verdict: Verdict) -> "RunResult":
        """The same result with a verdict."""
        return self.model_copy(
            update={
                "converged": verdict.converged,
                "verdict": verdict.line,
                "criteria": list(verdict.criteria),
            }
        )


def estimate(
    draws: PosteriorDraws, corrected: CorrectedPosterior, particles_per_component: int | None = None
) -> Estimates:
    """Everything that the draws tell about the marginal likelihood, the fit and the components.

    Args:
        draws: Importance draws from the trained mixture; at least ten of each component.
        corrected: The posterior corrected from the same draws.
        particles_per_component: Draws of every component in one repeat of the marginal likelihood's bound;
            by default `evaluation.equal_cost_particles`, or all draws where there are fewer.
    """
    log_weights = draws.by_component(draws.log_weights)
    if particles_per_component is None:
        particles_per_component = min(
            evaluation.equal_cost_particles(draws.num_components), log_weights.shape[1]
        )
    balance = diagnostics.component_balance(draws)
    reliability = diagnostics.Reliability.of(draws)
    return Estimates(
        marginal_log_likelihood=evaluation.marginal_log_likelihood(log_weights, particles_per_component),
        lower_bound_1=evaluation.lower_bound(log_weights, 1),
        lower_bound_10=evaluation.lower_bound(log_weights, 10),
        jensen_shannon=evaluation.jensen_shannon_divergence(draws.responsibilities, draws.component),
        pareto_k=reliability.pareto_k,
        ess=reliability.ess,
        ess_percent=100 * reliability.ess / draws.num_draws,
        num_draws=draws.num_draws,
        components=ComponentsSummary(
            weight_share=balance.weight_share.tolist(),
            ess=balance.effective_sample_size.tolist(),
            topology_entropy=balance.topology_entropy.tolist(),
        ),
        topologies=TopologiesSummary(
            distinct=len(draws.topologies),
            drawn_mass=min(1.0, corrected.drawn_mass),
            entropy=diagnostics.topology_entropy(draws),
            correction=corrected.method,
            credible_sets=list(credible_sets(corrected)),
            ccd=CcdSummary(
                entropy=corrected.ccd.entropy,
                log_num_topologies=corrected.ccd.log_num_topologies,
                map_probability=math.exp(corrected.ccd.map_log_probability),
            ),
        ),
        tree_length=summarise(draws.branch_lengths.sum(axis=1), corrected.draw_weights),
        model={
            name: summarise(draws.traces[name], corrected.draw_weights) for name in draws.model_parameters
        },
    )


def summarise(values: Float64[np.ndarray, "draw"], weights: Float64[np.ndarray, "draw"]) -> Summary:
    """Summary of weighted draws.

    Args:
        values: Of the draws.
        weights: Of the draws; they sum to 1.
    """
    mean = float(weights @ values)
    order = np.argsort(values, kind="stable")
    cumulated = np.cumsum(weights[order])
    middle = min(int(np.searchsorted(cumulated, 0.5 * cumulated[-1])), len(values) - 1)
    return Summary(
        mean=mean,
        sd=math.sqrt(float(weights @ (values - mean) ** 2)),
        median=float(values[order[middle]]),
        hpd95=highest_density_interval(values, weights),
    )


def write_result(path: Path, result: RunResult) -> None:
    """Write ``result.json``, whole or not at all; refuses numbers that are not finite (ValueError)."""
    write_text(path, to_json(result.model_dump(mode="json"), indent=2) + "\n")


def read_result(path: Path) -> RunResult:
    """Read ``result.json``.

    Raises:
        RunDirectoryError: It is missing, or not what this version writes.
    """
    try:
        return RunResult.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunDirectoryError(
            f"{path}: missing, so the run has not finished; finish it with --resume"
        ) from None
    except UnicodeDecodeError:
        raise RunDirectoryError(f"{path}: damaged (it is not text); run the analysis again") from None
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(map(str, fault["loc"]))
        raise RunDirectoryError(
            f"{path}: expected the result of a run of this version, got {where or 'a damaged file'}: "
            f"{fault['msg'].splitlines()[0]}; read it with the version that wrote it, or run "
            "the analysis again"
        ) from None
