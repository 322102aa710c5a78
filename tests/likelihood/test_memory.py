"""The compiled likelihoods stay inside their arrays: these lie inside larger ones, with margins around."""

import numpy as np
import pytest

from vbpi_mix.likelihood.compiled import CompiledGeneralLikelihood, CompiledJC69Likelihood

MARGIN = 4096
"""Bytes before and after each array. All bits are set: as floating-point numbers they are not a number."""


class Guards:
    """Copies of arrays inside larger arrays."""

    def __init__(self) -> None:
        self.rooms = []

    def copy(self, array):
        room = np.full(array.nbytes + 2 * MARGIN, 0xFF, np.uint8)
        self.rooms.append(room)
        inside = room[MARGIN : MARGIN + array.nbytes].view(array.dtype).reshape(array.shape)
        inside[...] = array
        return inside

    def copy_all(self, value):
        """A value with copies for the arrays in it, and in the lists and tuples in it."""
        match value:
            case np.ndarray() if value.flags.c_contiguous:  # another layout would be compiled for anew
                return self.copy(value)
            case list() | tuple():
                parts = [self.copy_all(part) for part in value]
                return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
            case _:
                return value

    def assert_untouched(self):
        assert len(self.rooms) > 10
        for room in self.rooms:
            assert (room[:MARGIN] == 0xFF).all()
            assert (room[-MARGIN:] == 0xFF).all()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kind", [CompiledJC69Likelihood, CompiledGeneralLikelihood])
def test_likelihoods_stay_inside_their_arrays(kind, dtype, draw_trees, draw_patterns, uneven_model):
    # A read outside would bring a nan or the index -1 into the results, a write would change a margin. Two
    # blocks of patterns, the last not full; branches so short that nodes are scaled in both precisions.
    models = [uneven_model] if kind is CompiledGeneralLikelihood else []
    likelihood = kind(draw_patterns(40, 70, seed=1), *models, dtype=dtype)
    children, lengths = draw_trees(40, 3, seed=2)
    lengths[1:] *= 1e-14
    expected = likelihood.value_and_gradient(children, lengths)
    assert likelihood._is_scaled.any()
    assert np.isfinite(expected[0]).all()
    guards = Guards()
    for name, value in vars(likelihood).items():
        setattr(likelihood, name, guards.copy_all(value))
    children, lengths = guards.copy(children), guards.copy(lengths)
    out = guards.copy(np.zeros(3)), guards.copy(np.zeros_like(lengths))
    likelihood.value_and_gradient(children, lengths, out=out)
    for guarded, plain in zip(out, expected, strict=True):
        np.testing.assert_array_equal(guarded, plain)
    likelihood.value(children, lengths, out=out[0])
    np.testing.assert_array_equal(out[0], expected[0])
    guards.assert_untouched()
