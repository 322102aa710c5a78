"""What every engine of the likelihood offers, and how to get one."""

from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Float64

from vbpi_mix.likelihood.models import SubstitutionModel
from vbpi_mix.patterns import SitePatterns
from vbpi_mix.shapes import BranchLengths, Topologies

LogLikelihoods: TypeAlias = Float64[np.ndarray, "tree"]
"""One log-likelihood in nats for each tree of a batch."""


@runtime_checkable
class TreeLikelihood(Protocol):
    """Log-likelihoods of trees, given the data and the substitution model that the object holds.

    A tree with a likelihood of zero (as when taxa that differ are joined by branches of length zero) has
    the value minus infinity, and a gradient of zeros: none is defined there. Branches of length zero are
    otherwise as good as any; the derivative there is the one-sided one.

    An object keeps workspace between calls, so one object serves one thread at a time.
    """

    def value(
        self,
        children: Topologies,
        branch_lengths: BranchLengths,
        *,
        out: LogLikelihoods | None = None,
    ) -> LogLikelihoods:
        """Log-likelihood of every tree.

        Args:
            children: Topologies, as defined in `vbpi_mix.trees.topology`.
            branch_lengths: Expected substitutions per site; finite, not negative.
            out: Array to write the result to; a new one if None.

        Returns:
            Log-likelihoods in nats, no constant left out.

        Raises:
            ValueError: The arrays do not fit the data, an array of children is no topology, or a length is
            negative. NonFiniteError: A branch length is not finite.
        """
        ...

    def value_and_gradient(
        self,
        children: Topologies,
        branch_lengths: BranchLengths,
        *,
        out: tuple[LogLikelihoods, BranchLengths] | None = None,
    ) -> tuple[LogLikelihoods, BranchLengths]:
        """Log-likelihood of every tree, and its derivatives with respect to the branch lengths.

        Args:
            children: Topologies, as defined in `vbpi_mix.trees.topology`.
            branch_lengths: Expected substitutions per site; finite, not negative.
            out: Arrays to write the results to; new ones if None.

        Returns:
            Log-likelihoods in nats, and derivatives [tree, edge] in nats per expected substitution per site.

        Raises:
            ValueError: The arrays do not fit the data, an array of children is no topology, or a length is
            negative. NonFiniteError: A branch length is not finite.
        """
        ...


def make_likelihood(
    patterns: SitePatterns,
    model: SubstitutionModel,
    *,
    threads: int = 1,
    dtype: str = "float64",
    engine: str = "compiled",
    device: str = "cpu",
) -> TreeLikelihood:
    """Likelihood of an alignment under a model, by the fastest kernel that is exact for them.

    Args:
        patterns: Data at the leaves.
        model: Substitution model. The Jukes-Cantor model has a compiled kernel of its own.
        threads: Threads of the compiled engine. The result does not depend on their number.
        dtype: Precision of the partials; sums over patterns and the results are float64 in any case. With
            float32, branches below 1e-15 may underflow; values of alignments of usual size err by about a
            thousandth of a nat, which is measured in ``benchmarks``.
        engine: ``compiled`` runs on the processor and is the fastest there; ``torch`` runs on any device.
        device: Device of the torch engine.

    Raises:
        ValueError: An unknown engine or dtype, or an option that the engine does not have.
    """
    if dtype not in ("float64", "float32"):
        raise ValueError(f"dtype must be float64 or float32, got {dtype!r}.")
    match engine:
        case "compiled":
            from vbpi_mix.likelihood.compiled import CompiledGeneralLikelihood, CompiledJC69Likelihood

            if device != "cpu":
                raise ValueError(
                    f"The compiled engine runs on the cpu, not {device!r}: use engine torch there."
                )
            if model.is_jc69:
                return CompiledJC69Likelihood(patterns, threads=threads, dtype=dtype)
            return CompiledGeneralLikelihood(patterns, model, threads=threads, dtype=dtype)
        case "torch":
            from vbpi_mix.likelihood.torch_kernel import TorchLikelihood

            if threads != 1:
                raise ValueError(f"Engine torch has no option threads, got {threads}: use engine compiled.")
            return TorchLikelihood(patterns, model, dtype=dtype, device=device)
        case _:
            raise ValueError(f"engine must be compiled or torch, got {engine!r}.")
