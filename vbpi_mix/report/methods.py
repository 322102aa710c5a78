"""Words for a paper: what was analysed, under which model, how, and whom to cite for it."""

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from vbpi_mix.datasets import dataset_info
from vbpi_mix.likelihood.model_names import CLASSES, ModelSpec, parse_model
from vbpi_mix.objectives.estimators import Estimator
from vbpi_mix.report.data_summary import DataSummary
from vbpi_mix.report.words import fixed
from vbpi_mix.training.config import MixtureConfig, RunConfig

_FAMILIES = {
    "JC": ("the Jukes–Cantor model (JC69)", "Jukes & Cantor 1969"),
    "F81": ("the F81 model", "Felsenstein 1981"),
    "K80": ("Kimura's two-parameter model (K80)", "Kimura 1980"),
    "HKY": ("the HKY85 model", "Hasegawa et al. 1985"),
    "TN": ("the TN93 model", "Tamura & Nei 1993"),
    "SYM": ("the symmetric model (SYM)", "Zharkikh 1994"),
    "GTR": ("the general time-reversible model (GTR)", "Tavaré 1986"),
}
_ESTIMATORS = {
    Estimator.A2A: "all components drawn in every step",
    Estimator.S2A: "some components drawn in every step against the whole mixture",
    Estimator.S2S: "some components drawn in every step against themselves",
}


_PROPER_NAMES = {"python": "Python", "numpy": "NumPy", "numba": "Numba", "torch": "PyTorch"}


@dataclass(frozen=True)
class Methods:
    """A paragraph to paste, and what it cites.

    Attributes:
        sentences: The paragraph.
        citations: Full references, by name.
    """

    sentences: tuple[str, ...]
    citations: tuple[str, ...]


@dataclass(frozen=True)
class PriorRow:
    """What is assumed of a parameter.

    Attributes:
        parameter: The parameter.
        prior: Its prior density, or how it is fixed.
    """

    parameter: str
    prior: str


def prior_rows(config: RunConfig) -> list[PriorRow]:
    """What is assumed of trees and of the substitution model."""
    spec, priors, rate = parse_model(config.data.model), config.data.priors, config.data.branch_prior_rate
    rows = [
        PriorRow("topology", "uniform over all unrooted binary topologies"),
        PriorRow("branch lengths", f"independent exponential, rate {rate:g} (mean {1 / rate:g})"),
    ]
    num_classes = max(CLASSES[spec.family]) + 1
    if num_classes > 1:
        simplex = f"Dirichlet, concentration {priors.exchangeabilities:g}, on the {num_classes} classes"
        fixed = spec.exchangeabilities and "fixed: " + _listed(spec.exchangeabilities)
        rows.append(PriorRow("exchangeabilities AC, AG, AT, CG, CT, GT", fixed or simplex))
    match spec.frequencies:
        case "equal":
            words = "fixed: equal"
        case "empirical":
            words = "fixed: those of the alignment"
        case "estimated":
            words = f"Dirichlet, concentration {priors.frequencies:g}"
        case values:
            words = "fixed: " + _listed(values)
    rows.append(PriorRow("nucleotide frequencies A, C, G, T", words))
    if spec.num_categories > 1:
        words = f"exponential, rate {priors.shape_rate:g}" if spec.shape is None else f"fixed: {spec.shape:g}"
        rows.append(PriorRow(f"shape of gamma rates, {spec.num_categories} categories", words))
    if spec.has_invariable:
        words = "uniform from 0 to 1" if spec.invariable is None else f"fixed: {spec.invariable:g}"
        rows.append(PriorRow("probability of invariable sites", words))
    return rows


def model_words(spec: ModelSpec) -> str:
    """A substitution model in words, with what to cite in parentheses."""
    family, source = _FAMILIES[spec.family]
    words = f"{family} ({source})"
    if spec.num_categories > 1:
        words += f" with discrete gamma rates across sites in {spec.num_categories} categories (Yang 1994)"
    if spec.has_invariable:
        joint = "and" if spec.num_categories > 1 else "with"
        words += f" {joint} a proportion of invariable sites (Gu et al. 1995)"
    return words


def methods(result: dict[str, Any], config: RunConfig, data: DataSummary) -> Methods:
    """The paragraph of a run.

    Args:
        result: Content of ``result.json``.
        config: Configuration of the run.
        data: Figures of the alignment.
    """
    sentences = (
        _program_sentence(result),
        f"The alignment had {data.num_taxa:,} taxa and {data.num_sites:,} sites ({data.num_patterns:,} "
        f"distinct patterns, {100 * data.missing:.1f}% missing).",
        f"Substitutions followed {model_words(parse_model(config.data.model))}.",
        _prior_sentence(config),
        _family_sentence(config.mixture),
        _support_sentence(result["provenance"]["support"]),
        _training_sentence(result, config.mixture.particles),
        _evidence_sentence(result["marginal_log_likelihood"]),
        "Clade probabilities are importance-weighted; branch lengths are posterior means over the trees with "
        "the branch, with 95% highest-density intervals.",
        _topology_sentence(result["topologies"]),
        _version_sentence(result),
    )
    text = " ".join(sentences)
    known = _references()
    citations = [known[name] for name in sorted(known) if name in text]
    if config.data.dataset is not None:
        citations.append(f"{config.data.dataset}: {dataset_info(config.data.dataset).citation}")
    return Methods(sentences, tuple(citations))


@cache
def _references() -> dict[str, str]:
    """What can be cited: full references by name."""
    return tomllib.loads((Path(__file__).parent / "citations.toml").read_text(encoding="utf-8"))


def _program_sentence(result: dict[str, Any]) -> str:
    return (
        "The posterior distribution of unrooted trees was approximated by variational Bayesian phylogenetic "
        f"inference (Zhang & Matsen 2019) in vbpi-mix {result['versions']['vbpi-mix']}."
    )


def _prior_sentence(config: RunConfig) -> str:
    rows = prior_rows(config)
    free = [f"{row.parameter} – {row.prior}" for row in rows if not row.prior.startswith("fixed")]
    given = [row for row in rows if row.prior.startswith("fixed") and row.prior != "fixed: equal"]
    fixed_values = [f"{row.parameter} – {row.prior.removeprefix('fixed: ')}" for row in given]
    sentence = f"Prior distributions were: {'; '.join(free)}."
    return sentence + (f" Fixed were: {'; '.join(fixed_values)}." if fixed_values else "")


def _family_sentence(mixture: MixtureConfig) -> str:
    network, cited = "a subsplit Bayesian network", "Zhang & Matsen 2018"
    if mixture.components > 1:
        network = f"a mixture of {mixture.components} subsplit Bayesian networks"
        cited += f"; Molén et al. 2024; Hotti et al. 2024; {_ESTIMATORS[mixture.estimator]}"
    return (
        f"The approximating distribution was {network} over topologies ({cited}), with densities of branch "
        "lengths that share parameters between topologies."
    )


def _support_sentence(source: str) -> str:
    """Where the support's topologies come from; what follows a semicolon is advice."""
    made = source.split("; ")[0]
    if re.search(r"iq-?tree|piqtree|ufboot", made, re.IGNORECASE):
        trees = "ultrafast bootstrap trees (Hoang et al. 2018) of IQ-TREE (Minh et al. 2020)"
    else:
        trees = f"these trees: {Path(made).name if made.startswith('/') else made}"
    return f"Its support was made of the subsplits of {trees}."


def _training_sentence(result: dict[str, Any], particles: int) -> str:
    k, runs = result["pareto_k"], result.get("runs") or []
    agreement = [one["value"] for one in result.get("criteria") or [] if one["name"] == "asdsf"]
    combined = "" if not runs else f" {len(runs)} independent runs were combined"
    if agreement:
        combined += f" (average standard deviation of split frequencies {agreement[0]:.4f})"
    tail = "" if k is None else f"; Pareto k-hat {k:.2f}, Vehtari et al. 2024"
    return (
        f"It was trained for {result['iterations']:,} steps of stochastic gradients with {particles} "
        f"particles a component, and corrected by importance sampling with {result['num_draws']:,} draws "
        f"(effective sample size {result['ess']:,.0f}{tail})." + (combined and combined + ".")
    )


def _evidence_sentence(marginal: dict[str, Any]) -> str:
    return (
        f"The log marginal likelihood was {fixed(marginal['mean'], 2)} (standard deviation "
        f"{marginal['std']:.3f} over {marginal['num_repeats']} bounds of "
        f"{marginal['evaluations_per_repeat']:,} likelihood evaluations)."
    )


def _topology_sentence(topologies: dict[str, Any]) -> str:
    held = next(one["num_topologies"] for one in topologies["credible_sets"] if one["level"] == 0.95)
    return (
        f"The 95% credible set held {held:,} topologies; the conditional clade distribution (Larget 2013) "
        f"had an entropy of {topologies['ccd']['entropy']:.2f} nats."
    )


def _version_sentence(result: dict[str, Any]) -> str:
    named = [
        f"{_PROPER_NAMES[name]} {version}"
        for name, version in result["versions"].items()
        if name in _PROPER_NAMES
    ]
    seeds = [str(run["seed"]) for run in result.get("runs") or [result]]
    return f"Random seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}; {', '.join(named)}."


def _listed(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)
