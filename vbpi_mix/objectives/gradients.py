r"""Gradients of mixture bounds as cotangents of log weights: what each gradient estimator multiplies.

Setting. S components Phi are sampled, each draws K particles z = (tau, b): a discrete part (a topology,
perhaps absent) with parameters theta and a reparameterised part with parameters phi. The density is q = (1/D)
sum_d q_d over the denominators, which contain Phi; r_d = q_d / sum q_d' is a responsibility, w = p / q a
weight and W_sk = w_sk / sum_j w_sj. Given Phi the bound is L = (1/S) sum_{s in Phi} L_s, L_s = log (1/K)
sum_k w_sk. The engine adds up, for gradient **ascent**,

    sum_sk   d_log_joint_sk  * d log p(z_sk) / db      * db/dphi of the generating component
  + sum_skd  d_path_skd      * d log q_d(b_sk|tau_sk) / db * db/dphi of the generating component
  + sum_skd  d_score_branch_skd * the direct derivative of log q_d(b_sk | tau_sk) in the phi of component d
  + sum_skd  d_topology_skd  * d log q_d(tau_sk) in the theta of component d.

What is unbiased, given Phi (hence also on average over Phi), for the gradient of E[L]:

=========================  ==================  ==============================================================
estimator                  parameters          expectation
=========================  ==================  ==============================================================
VIMCO                      theta               the gradient, every A, S, K and estimator
REWEIGHTED_WAKE_SLEEP      theta               another objective, the inclusive KL; see below
REPARAMETERISED            phi                 the gradient, every A, S, K and estimator
DOUBLY_REPARAMETERISED     phi                 the gradient, every A, S, K and estimator; lower variance
PATH                       phi                 the gradient of the K = 1 bound, every A, S and estimator
SQUARED_PATH               phi                 the gradient if D = 1, or K = 1 and D = S; else biased
=========================  ==================  ==============================================================

**VIMCO** (Mnih & Rezende 2016). E[L_s sum_k grad log q_s(tau_sk)] is the score part. Subtracting L_{s,-k}, in
which f_sk is replaced by the mean of the other f_sj, changes no expectation as it does not depend on z_sk.
The density in the weights adds -W_sk r_d on log q_d(tau_sk) for every d. With K = 1 there is no other
particle: the baseline is then the mean f of the other sampled components, whose draws are independent of this
one's, so the expectation stays. With S = K = 1 there is none at all, and the score's coefficient is the log
weight itself: unbiased but of enormous variance; prefer K >= 2.

**Reweighted wake-sleep** (Bornschein & Bengio 2015) ascends E_p[log q], the inclusive divergence, by
self-normalised importance weights; like them it is consistent in K and biased at finite K. Particles of
component s have weights p / q, so as K grows

    sum_k W_sk grad log q_s(tau_sk) -> E_p[r_s grad log q_s(tau)] / E_p[r_s].

The gradient of E_p[log q] in the theta of component s is E_p[r_s grad log q_s]: the estimator is that
gradient divided by the posterior mass E_p[r_s] that component s answers for, so fixed points agree and small
components learn as fast as big ones. Putting W_sk r_d on every component d instead has the same expectation
up to normalisation, since q_s r_d = q_d r_s.

**Doubly reparameterised** (after Tucker et al. 2019, for mixtures). The plain reparameterised gradient in the
phi of component a is, times S,

    sum_k W_ak (d log w / db) db/dphi_a  -  sum_{s in Phi} sum_k W_sk r_a(z_sk) grad log q_a(b_sk | tau_sk).

Its second, direct term is a score function, and noisy. For a draw z let W(s)(z) = w(z) / (w(z) + sum_{j != k}
w_sj), its weight when it takes the place of z_sk in batch s. As q_s r_a = q_a r_s holds for the joint
densities,

    E_{z ~ q_s}[ W(s)(z) r_a(z) grad log q_a(b|tau) ] = E_{z ~ q_a}[ W(s)(z) r_s(z) grad log q_a(b|tau) ],

a move that replaces tau together with b. On the right q_a(tau) does not depend on phi, so for each tau the
score of q_a(b|tau) integrates by parts, E_{q_a(b|tau)}[g grad log q_a] = E[(dg/db) db/dphi_a] with g = W(s)
r_s: hence a random discrete part does no harm. With C_d = d log q_d / db and C = sum_d r_d C_d over all
denominators,

    d log w = d log p - C,   d W(s) = W(s) (1 - W(s)) d log w,   d r_s = r_s (C_s - C),

the whole gradient in the phi of a sampled a becomes, on a's own draws z = z_ak and paired with place k of
each batch,

    sum_k { c (d log p / db - C) - sum_{s in Phi} r_s W(s) (C_s - C) } db/dphi_a,
    c = W(a) - sum_{s in Phi} r_s W(s) (1 - W(s)).

A denominator outside Phi (S2A with S < A) has no draws: its direct term -W_sk r_d stays, through
``d_score_branch``. With D = 1, c = W^2 and the last sum vanishes, as in Tucker et al. (2019).

**Path** takes W = 1/K and dW = 0 in these formulas: c = 1/K. It is exact for the bound at K = 1, (1/S) sum_s
E[f_s], averaged over K draws, and serves while annealing, where squared weights starve all particles but one.
If Phi is all denominators (A2A, S2S) then sum_s r_s = 1 and the coefficient of C_d collapses to -r_d / (SK):
'sticking the landing' (Roeder et al. 2017) is unbiased for mixtures, too.

**Squared path** keeps W^2 (d log p - C): one multiplication, and for D = 1 the doubly reparameterised
gradient; for mixtures it leaves out what the other batches contribute and is biased.

References:
    Bornschein & Bengio (2015), Reweighted wake-sleep. Mnih & Rezende (2016), Variational inference for Monte
    Carlo objectives. Roeder, Wu & Duvenaud (2017), Sticking the landing. Tucker, Lawson, Gu & Maddison
    (2019), Doubly reparameterized gradient estimators for Monte Carlo objectives.
"""

from enum import Enum
from typing import Any, NamedTuple

from array_api_compat import device
from jaxtyping import Float, Int

from vbpi_mix.objectives.bounds import (
    ImportanceWeights,
    Namespace,
    importance_weights,
    log_sum_exp,
    namespace_of,
)

_ABSENT = -1e30
"""Log weight of a particle that is left out: its exp is zero, yet arithmetic with it stays finite."""


class TopologyGradient(Enum):
    """Estimator of the gradient in the parameters of the discrete part."""

    VIMCO = "vimco"
    REWEIGHTED_WAKE_SLEEP = "reweighted_wake_sleep"


class BranchGradient(Enum):
    """Estimator of the gradient in the parameters of the reparameterised part."""

    REPARAMETERISED = "reparameterised"
    DOUBLY_REPARAMETERISED = "doubly_reparameterised"
    PATH = "path"
    SQUARED_PATH = "squared_path"


class BranchCotangents(NamedTuple):
    """Coefficients for gradient ascent in the parameters of the reparameterised part.

    Attributes:
        d_log_joint: of the derivative of log_joint through the particle.
        d_path: of the derivative of log q_d(b | tau) through the particle.
        d_score_branch: of the direct derivative of log q_d(b | tau) in the parameters of component d.
    """

    d_log_joint: Float[Any, "*batch sampled particle"]
    d_path: Float[Any, "*batch sampled particle denominator"]
    d_score_branch: Float[Any, "*batch sampled particle denominator"]


class Objective(NamedTuple):
    """Value of the bound and the coefficients of all derivatives, for gradient ascent.

    Attributes:
        bound: one value for each member of the batch, in nats.
        log_weights: f, in nats.
        d_log_joint: see `BranchCotangents`.
        d_path: see `BranchCotangents`.
        d_score_branch: see `BranchCotangents`.
        d_topology: of the derivative of log q_d(tau) in the parameters of component d.
    """

    bound: Float[Any, "*batch"]
    log_weights: Float[Any, "*batch sampled particle"]
    d_log_joint: Float[Any, "*batch sampled particle"]
    d_path: Float[Any, "*batch sampled particle denominator"]
    d_score_branch: Float[Any, "*batch sampled particle denominator"]
    d_topology: Float[Any, "*batch sampled particle denominator"]


def mixture_objective(
    log_joint: Float[Any, "*batch sampled particle"],
    log_density: Float[Any, "*batch sampled particle denominator"],
    generator: Int[Any, " sampled"],
    topology_gradient: TopologyGradient,
    branch_gradient: BranchGradient,
) -> Objective:
    """Bound of a step and the cotangents of everything it depends on.

    Args:
        log_joint: beta log p(Y | tau, b) + log p(tau, b), in nats.
        log_density: log q_d(tau, b), topology and branches together, in nats; -inf where component d cannot
            produce the particle, never for the generating component.
        generator: position among the denominators of each sampled component; all different.
        topology_gradient: estimator for the discrete part.
        branch_gradient: estimator for the reparameterised part.
    """
    weights = importance_weights(log_joint, log_density)
    branch = branch_cotangents(weights, generator, branch_gradient)
    return Objective(
        bound=weights.bound,
        log_weights=weights.log_weights,
        d_log_joint=branch.d_log_joint,
        d_path=branch.d_path,
        d_score_branch=branch.d_score_branch,
        d_topology=topology_cotangents(weights, generator, topology_gradient),
    )


def topology_cotangents(
    weights: ImportanceWeights, generator: Int[Any, " sampled"], kind: TopologyGradient
) -> Float[Any, "*batch sampled particle denominator"]:
    """Coefficients of d log q_d(tau_sk) in the parameters of component d, for gradient ascent."""
    xp = namespace_of(weights.log_weights)
    r = weights.responsibilities
    num_sampled = r.shape[-3]
    match kind:
        case TopologyGradient.REWEIGHTED_WAKE_SLEEP if (
            r.shape[-1] == 1
        ):  # the only component is the generator
            return weights.normalised[..., None]
        case TopologyGradient.VIMCO:
            own = _is_generator(xp, r, generator)[:, None, :]
            signal = _learning_signal(xp, weights.log_weights)
            return (signal[..., None] * own - weights.normalised[..., None] * r) / num_sampled
        case TopologyGradient.REWEIGHTED_WAKE_SLEEP:
            own = _is_generator(xp, r, generator)[:, None, :]
            return weights.normalised[..., None] * (own / num_sampled)
        case _:
            raise TypeError(f"expected a TopologyGradient, got {kind!r}")


def branch_cotangents(
    weights: ImportanceWeights, generator: Int[Any, " sampled"], kind: BranchGradient
) -> BranchCotangents:
    """Coefficients of the derivatives of log_joint and log q_d(b | tau), for gradient ascent."""
    xp = namespace_of(weights.log_weights)
    r = weights.responsibilities
    num_sampled, num_particles, num_denominators = r.shape[-3:]
    match kind:
        case BranchGradient.REPARAMETERISED:
            W = weights.normalised / num_sampled
            d_density = -W[..., None] * r
            return BranchCotangents(W, d_density, d_density)
        case BranchGradient.DOUBLY_REPARAMETERISED if num_denominators > 1:
            return _doubly_reparameterised(xp, weights, generator)
        case BranchGradient.DOUBLY_REPARAMETERISED | BranchGradient.SQUARED_PATH:
            squared = weights.normalised**2 / num_sampled
            return BranchCotangents(squared, -squared[..., None] * r, xp.zeros_like(r))
        case BranchGradient.PATH if num_sampled < num_denominators:
            uniform = xp.full_like(weights.log_weights, 1.0 / num_particles)
            r_W = xp.take(r, generator, axis=-1) / num_particles
            return _collect(xp, weights, generator, uniform, r_W, uniform)
        case BranchGradient.PATH:
            uniform = xp.full_like(weights.log_weights, 1.0 / (num_sampled * num_particles))
            return BranchCotangents(uniform, r / -(num_sampled * num_particles), xp.zeros_like(r))
        case _:
            raise TypeError(f"expected a BranchGradient, got {kind!r}")


def _doubly_reparameterised(
    xp: Namespace, weights: ImportanceWeights, generator: Int[Any, " sampled"]
) -> BranchCotangents:
    """Cotangents with the direct terms of sampled components moved to their own paths."""
    f, W = weights.log_weights, weights.normalised
    # [a, k, s]: log of how far particle k of a outweighs the particles of batch s other than its k-th.
    excess = f[..., None] - xp.matrix_transpose(_log_sum_of_others(xp, f))[..., None, :, :]
    nothing = xp.zeros_like(excess)
    W_placed = xp.exp(-xp.logaddexp(nothing, -excess))
    one_minus_W_placed = xp.exp(-xp.logaddexp(nothing, excess))
    r_W = xp.take(weights.responsibilities, generator, axis=-1) * W_placed
    c = W - xp.sum(r_W * one_minus_W_placed, axis=-1)
    return _collect(xp, weights, generator, c, r_W, W)


def _collect(
    xp: Namespace,
    weights: ImportanceWeights,
    generator: Int[Any, " sampled"],
    c: Float[Any, "*batch sampled particle"],
    r_W: Float[Any, "*batch sampled particle sampled"],
    W: Float[Any, "*batch sampled particle"],
) -> BranchCotangents:
    """Coefficients of c (d log p - C) - sum_{s in Phi} r_s W(s) (C_s - C), collected for each C_d, over S.

    Args:
        xp: array namespace.
        weights: weights of the step.
        generator: position among the denominators of each sampled component.
        c: coefficient of d log w.
        r_W: r_s W(s) of every particle for every batch s.
        W: weights in the direct terms of denominators that are not sampled.
    """
    r = weights.responsibilities
    num_sampled, _, num_denominators = r.shape[-3:]
    own = _is_generator(xp, r, generator)
    # Both kinds of C are shared out by responsibilities; each C_s goes to its own place.
    d_path = (xp.sum(r_W, axis=-1) - c)[..., None] * r - xp.matmul(r_W, own)
    if num_sampled == num_denominators:
        d_score = xp.zeros_like(r)
    else:
        is_outside = 1.0 - xp.sum(own, axis=0)
        d_score = W[..., None] * r * (is_outside / -num_sampled)
    return BranchCotangents(c / num_sampled, d_path / num_sampled, d_score)


def _is_generator(
    xp: Namespace, r: Float[Any, "*batch sampled particle denominator"], generator: Int[Any, " sampled"]
) -> Float[Any, "sampled denominator"]:
    """One where d is the component that generated the particles of s, else zero."""
    return xp.astype(generator[:, None] == xp.arange(r.shape[-1], device=device(r)), r.dtype)


def _log_sum_of_others(
    xp: Namespace, f: Float[Any, "*batch sampled particle"]
) -> Float[Any, "*batch sampled particle"]:
    """Log weight of a batch without particle k, summed afresh: no cancellation; about -1e30 if K = 1."""
    left_out = _ABSENT * xp.eye(f.shape[-1], dtype=f.dtype, device=device(f))
    return log_sum_exp(xp, f[..., None, :] + left_out)[..., 0]


def _learning_signal(
    xp: Namespace, f: Float[Any, "*batch sampled particle"]
) -> Float[Any, "*batch sampled particle"]:
    """L_s - L_{s,-k}: what particle k adds to its component's bound, against a baseline free of it."""
    num_sampled, num_particles = f.shape[-2:]
    if num_particles > 1:
        others = _log_sum_of_others(xp, f)
        mean_of_others = (xp.sum(f, axis=-1, keepdims=True) - f) / (num_particles - 1)
        return xp.logaddexp(others, f) - xp.logaddexp(others, mean_of_others)
    if num_sampled > 1:
        return f - (xp.sum(f, axis=-2, keepdims=True) - f) / (num_sampled - 1)
    return f
