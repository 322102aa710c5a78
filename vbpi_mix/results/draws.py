"""Importance draws from a trained mixture: what every result of a run is computed from.

A draw is a topology with branch lengths, and coordinates z of the substitution model where that has free
parameters, ``(tau, b, z) ~ q``, together with its log weight

    f = log p(Y, tau, log b, z) - log q(tau, log b, z),        q = (1/A) sum_a q_a,

the mixture over all A components in the denominator, whichever component the draw came from
(deterministic-mixture or balance-heuristic multiple importance sampling: Veach & Guibas 1995; Elvira et al.
2019). The draws are stratified: every component contributes the same number.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64, Int, Int32


@dataclass(frozen=True)
class PosteriorDraws:
    """Stratified importance draws from a mixture of A components.

    Attributes:
        taxa: Names of the taxa, in the order that the topologies number them.
        topologies: The distinct topologies among the draws, canonical (``vbpi_mix.trees.topology``).
        log_q: Exact log probability of each distinct topology under the mixture, in nats.
        topology_index: Which of ``topologies`` each draw has.
        branch_lengths: Branch lengths of each draw, in expected substitutions per site.
        log_weights: Log importance weight f of each draw, in nats; its likelihood and priors are
            normalised, so that the mean of exp(f) estimates the marginal likelihood.
        component: Component that each draw came from, 0 .. A-1.
        responsibilities: q_a(tau, b) / sum_c q_c(tau, b), the posterior probability of each component given
            the draw; rows sum to 1.
        traces: What else is known of each draw, by the name of its column in the ``.p`` files of MrBayes:
            ``LnL``, the log-likelihood, and ``LnPr``, the log prior density of topology and branch lengths,
            in nats; parameters of the substitution model.
        model_parameters: Names of the latter.
        coordinates: Free parameters of each draw's model on the unconstrained scale
            (`vbpi_mix.likelihood.model_parameters`); None where there are none.
    """

    taxa: tuple[str, ...]
    topologies: Int32[np.ndarray, "unique internal 2"]
    log_q: Float64[np.ndarray, "unique"]
    topology_index: Int[np.ndarray, "draw"]
    branch_lengths: Float64[np.ndarray, "draw edge"]
    log_weights: Float64[np.ndarray, "draw"]
    component: Int[np.ndarray, "draw"]
    responsibilities: Float64[np.ndarray, "draw component"]
    traces: Mapping[str, Float64[np.ndarray, "draw"]] = field(default_factory=dict)
    model_parameters: tuple[str, ...] = ()
    coordinates: Float64[np.ndarray, "draw coordinate"] | None = None

    def __post_init__(self) -> None:
        num_taxa = len(self.taxa)
        if self.topologies.shape[1] != num_taxa - 2 or self.branch_lengths.shape[1] != 2 * num_taxa - 3:
            raise ValueError(
                f"expected {num_taxa - 2} internal nodes and {2 * num_taxa - 3} branch lengths "
                f"for {num_taxa} taxa, got {self.topologies.shape[1]} and {self.branch_lengths.shape[1]}"
            )
        counts = np.bincount(self.component, minlength=self.num_components)
        if len(counts) != self.num_components or np.any(counts != counts[0]):
            raise ValueError(f"expected the same number of draws from every component, got {counts.tolist()}")
        occurrences = np.bincount(self.topology_index, minlength=len(self.topologies))
        if len(occurrences) != len(self.topologies) or np.any(occurrences == 0):
            raise ValueError(
                f"expected the {len(self.topologies)} topologies to occur among the draws and no other; "
                f"the largest index is {len(occurrences) - 1}, "
                f"and {np.count_nonzero(occurrences == 0)} do not occur"
            )
        for name in ("log_q", "log_weights"):
            num_bad = np.count_nonzero(~np.isfinite(getattr(self, name)))
            if num_bad:
                raise ValueError(f"expected {name} to be finite, got {num_bad} values that are not")

    @property
    def num_draws(self) -> int:
        """Number of draws, over all components."""
        return len(self.log_weights)

    @property
    def num_components(self) -> int:
        """Number of components, A."""
        return self.responsibilities.shape[1]

    def by_component(self, values: Float64[np.ndarray, "draw"]) -> Float64[np.ndarray, "component particle"]:
        """Values of the draws, one row a component, in the order in which the component's draws came."""
        return values[np.argsort(self.component, kind="stable")].reshape(self.num_components, -1)
