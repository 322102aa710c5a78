"""Mixture lower bounds of a log evidence, from the log weights of particles.

S sampled components have K particles each. With the mixture density q = (1/D) sum_d q_d over D denominator
components, particle k of sampled component s has the log weight and the step has the bound

    f_sk = log_joint_sk - log q_sk,   bound = (1/S) sum_s log (1/K) sum_k exp f_sk.

The arrays may be of numpy or torch; results are of the same kind, precision and device. Leading batch axes
are independent problems (for instance images) with the same sampled components; each gets its own bound.

References:
    Kviman, Melin, Koptagel, Elvira & Lagergren (2022), Multiple importance sampling ELBO and deep ensembles
    of variational approximations (MISELBO).
"""

import math
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from array_api_compat import array_namespace
from jaxtyping import Float

Namespace: TypeAlias = ModuleType | SimpleNamespace
"""Functions of the array API standard for one kind of array."""

# numpy, but for reductions that skip its dispatch: on small arrays that costs more than they do.
_NUMPY = SimpleNamespace(
    **{name: value for name, value in vars(np).items() if not name.startswith("_")}
    | {"sum": np.add.reduce, "max": np.maximum.reduce}
)


class ImportanceWeights(NamedTuple):
    """Weights of the particles of a step.

    Attributes:
        bound: one value for each member of the batch, in nats; to be maximised.
        log_weights: f, in nats.
        normalised: softmax of f over the particles of a component; sums to one for each component.
        responsibilities: r_d = q_d / sum_d' q_d' of every particle; sums to one over d.
    """

    bound: Float[Any, "*batch"]
    log_weights: Float[Any, "*batch sampled particle"]
    normalised: Float[Any, "*batch sampled particle"]
    responsibilities: Float[Any, "*batch sampled particle denominator"]


def namespace_of(array: Any) -> Namespace:
    """Array namespace of an array: numpy itself where it can serve, since asking costs more than a sum."""
    if isinstance(array, np.ndarray) and hasattr(np, "__array_api_version__"):
        return _NUMPY
    return array_namespace(array)


def log_sum_exp(xp: Namespace, x: Float[Any, "..."]) -> Float[Any, "..."]:
    """Log of the sum of exponentials over the last axis, which stays. Needs one entry that is not -inf."""
    return _log_sum_exp_and_shares(xp, x)[0]


def _log_sum_exp_and_shares(
    xp: Namespace, x: Float[Any, "..."]
) -> tuple[Float[Any, "..."], Float[Any, "..."]]:
    """`log_sum_exp` and the softmax over the last axis."""
    if x.shape[-1] == 1:  # nothing to sum: training with one component need not pay for it in every step
        return x, xp.exp(x - x)
    peak = xp.max(x, axis=-1, keepdims=True)
    shares = xp.exp(x - peak)
    total = xp.sum(shares, axis=-1, keepdims=True)
    return peak + xp.log(total), shares / total


def importance_weights(
    log_joint: Float[Any, "*batch sampled particle"],
    log_density: Float[Any, "*batch sampled particle denominator"],
) -> ImportanceWeights:
    """Bound, log weights and responsibilities of a step.

    Args:
        log_joint: log of the (tempered) likelihood times the prior, in nats.
        log_density: log q_d of every particle under every denominator component, in nats. -inf says that the
            component cannot produce the particle; the generating component's own value must be finite.
    """
    xp = namespace_of(log_joint)
    num_sampled, num_particles, num_denominators = log_density.shape[-3:]
    log_total, responsibilities = _log_sum_exp_and_shares(xp, log_density)
    log_weights = log_joint - (log_total[..., 0] - math.log(num_denominators))
    log_sum, normalised = _log_sum_exp_and_shares(xp, log_weights)
    return ImportanceWeights(
        bound=xp.sum(log_sum[..., 0], axis=-1) / num_sampled - math.log(num_particles),
        log_weights=log_weights,
        normalised=normalised,
        responsibilities=responsibilities,
    )
