"""How the compiled kernels lay out site patterns: in blocks, the patterns of a block next to each other."""

import math

import numpy as np

from vbpi_mix.patterns import SitePatterns

LINE_BYTES = 64
"""Bytes of a cache line; a vector that crosses the border of two costs twice."""


def aligned(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Array of any content that begins at the border of a cache line."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    room = np.empty(size + LINE_BYTES, np.uint8)
    start = -room.ctypes.data % LINE_BYTES
    return room[start : start + size].view(dtype).reshape(shape)


def leaf_rows(patterns: SitePatterns, block: int, dtype: str) -> np.ndarray:
    """Partials of the leaves, and their sums, in blocks of patterns.

    The last block is filled up with missing data, whose likelihood is one.

    Args:
        patterns: Data at the leaves.
        block: Patterns in a block.
        dtype: Of the result.

    Returns:
        Array [block, taxon, row, pattern of the block]; rows A, C, G, T hold one for a state that the datum
        allows, else zero; the fifth row holds their sum.
    """
    num_blocks = -(-patterns.num_patterns // block)
    states = np.full((patterns.num_taxa, num_blocks * block), 15, np.uint8)
    states[:, : patterns.num_patterns] = patterns.states
    partials = states[:, None, :] >> np.arange(4, dtype=np.uint8)[:, None] & 1
    rows = np.concatenate((partials, partials.sum(1, keepdims=True)), 1)
    blocks = rows.reshape(patterns.num_taxa, 5, num_blocks, block).transpose(2, 0, 1, 3)
    result = aligned(blocks.shape, dtype)
    result[...] = blocks
    return result


def leaf_codes(patterns: SitePatterns, block: int) -> np.ndarray:
    """Sets of states of the leaves in blocks of patterns [block, taxon, pattern of the block] uint8.

    The last block is filled up with missing data, whose likelihood is one.

    Args:
        patterns: Data at the leaves.
        block: Patterns in a block.
    """
    num_blocks = -(-patterns.num_patterns // block)
    states = np.full((patterns.num_taxa, num_blocks * block), 15, np.uint8)
    states[:, : patterns.num_patterns] = patterns.states
    return np.ascontiguousarray(states.reshape(patterns.num_taxa, num_blocks, block).transpose(1, 0, 2))


def weight_rows(patterns: SitePatterns, block: int, dtype: str) -> np.ndarray:
    """Pattern weights [block, pattern of the block], zero for the patterns that fill up the last block."""
    num_blocks = -(-patterns.num_patterns // block)
    weights = aligned((num_blocks * block,), dtype)
    weights[:] = 0.0
    weights[: patterns.num_patterns] = patterns.weights
    return weights.reshape(num_blocks, block)
