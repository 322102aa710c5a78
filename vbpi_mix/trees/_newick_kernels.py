"""Compiled byte-level Newick parser; its public face is ``newick``."""

from fractions import Fraction

import numpy as np
from numba import njit

from vbpi_mix.trees._kernels import canonicalise_tree

# What is wrong with a text; ``newick`` has the messages.
OK = 0
NO_BRACKET = 1
UNCLOSED_BRACKET = 2
EXTRA_BRACKET = 3
UNKNOWN_TAXON = 4
DUPLICATE_TAXON = 5
MISSING_TAXON = 6
MULTIFURCATION = 7
ONE_CHILD = 8
BAD_LENGTH = 9
TEXT_AFTER_TREE = 10
UNCLOSED_COMMENT = 11
UNCLOSED_QUOTE = 12
EMPTY_LABEL = 13
NESTED_TOO_DEEP = 14
UNEXPECTED_TEXT = 15

# Bytes that end an unquoted label, and blanks: one look-up each instead of a row of comparisons.
_IS_STRUCTURE = np.zeros(256, np.bool_)
_IS_STRUCTURE[np.frombuffer(b"(),:;[]'", np.uint8)] = True
_IS_BLANK = np.zeros(256, np.bool_)
_IS_BLANK[np.frombuffer(b" \t\n\v\f\r", np.uint8)] = True

# Powers of ten as unevaluated sums of two doubles, so that decimals of up to 19 digits are rounded once.
_MAX_POWER = 280
_POWERS = [Fraction(10) ** e for e in range(-_MAX_POWER, _MAX_POWER + 1)]
_POWER_HIGH = np.array([float(p) for p in _POWERS])
_POWER_LOW = np.array([float(p - Fraction(float(p))) for p in _POWERS])


@njit(cache=True, nogil=True)
def _scale(mantissa: np.uint64, exponent: int) -> float:
    """Mantissa times 10^exponent, rounded once for exponents within the table.

    The product of two doubles is split into its rounded value and its error (Dekker 1971), to which the low
    parts of both factors are added before the one rounding that counts.
    """
    if mantissa == 0:
        return 0.0
    outside = 1.0
    if exponent < -_MAX_POWER:
        outside = 10.0 ** max(exponent + _MAX_POWER, -300)
        exponent = -_MAX_POWER
    elif exponent > _MAX_POWER:
        outside = 10.0 ** min(exponent - _MAX_POWER, 300)
        exponent = _MAX_POWER
    low_bits = mantissa & np.uint64(2047)
    x, x_low = np.float64(mantissa - low_bits), np.float64(low_bits)
    if -22 <= exponent <= 22 and mantissa < np.uint64(9007199254740992):
        # Both numbers are exact doubles: one operation, one rounding.
        if exponent < 0:
            return (x + x_low) / _POWER_HIGH[_MAX_POWER - exponent]
        return (x + x_low) * _POWER_HIGH[_MAX_POWER + exponent]
    y, y_low = _POWER_HIGH[_MAX_POWER + exponent], _POWER_LOW[_MAX_POWER + exponent]
    product = x * y
    shifted = 134217729.0 * x
    x_top = shifted - (shifted - x)
    shifted = 134217729.0 * y
    y_top = shifted - (shifted - y)
    x_rest, y_rest = x - x_top, y - y_top
    error = ((x_top * y_top - product) + x_top * y_rest + x_rest * y_top) + x_rest * y_rest
    return (product + (error + (x * y_low + x_low * y))) * outside


@njit(cache=True, nogil=True)
def _read_number(data: np.ndarray, position: int, end: int) -> tuple[float, int]:
    """Decimal number at ``position`` and the position after it; the position is -1 where there is none."""
    negative = False
    if position < end and (data[position] == 43 or data[position] == 45):
        negative = data[position] == 45
        position += 1
    mantissa = np.uint64(0)
    exponent, num_digits, num_kept = 0, 0, 0
    after_point = False
    while position < end:
        byte = data[position]
        if 48 <= byte <= 57:
            num_digits += 1
            if num_kept < 19:
                mantissa = mantissa * np.uint64(10) + np.uint64(byte - 48)
                if mantissa > 0:
                    num_kept += 1
                if after_point:
                    exponent -= 1
            elif not after_point:
                exponent += 1
        elif byte == 46 and not after_point:
            after_point = True
        else:
            break
        position += 1
    if num_digits == 0:
        return 0.0, -1
    if position < end and (data[position] == 101 or data[position] == 69):
        position += 1
        down = False
        if position < end and (data[position] == 43 or data[position] == 45):
            down = data[position] == 45
            position += 1
        given, has_digit = 0, False
        while position < end and 48 <= data[position] <= 57:
            given = min(10 * given + (data[position] - 48), 100_000)
            has_digit = True
            position += 1
        if not has_digit:
            return 0.0, -1
        exponent += -given if down else given
    value = _scale(mantissa, exponent)
    return (-value if negative else value), position


@njit(cache=True, nogil=True)
def _skip_blanks(data: np.ndarray, position: int, end: int) -> int:
    """Position of the next byte outside of blanks and [comments]; -1 - p for a comment left open at p."""
    while position < end:
        byte = data[position]
        if _IS_BLANK[byte]:
            position += 1
        elif byte == 91:
            opened, depth = position, 0
            while position < end:
                if data[position] == 91:
                    depth += 1
                elif data[position] == 93:
                    depth -= 1
                position += 1
                if depth == 0:
                    break
            if depth > 0:
                return -1 - opened
        else:
            break
    return position


@njit(cache=True, nogil=True)
def find_semicolons(data: np.ndarray, out: np.ndarray) -> tuple[int, int, int]:
    """Positions of the semicolons outside of quotes and comments.

    Returns how many there are, and kind and position of an error: a comment or quote that does not end.
    """
    num_found, position, end = 0, 0, data.shape[0]
    while position < end:
        byte = data[position]
        if byte == 59:
            out[num_found] = position
            num_found += 1
        elif byte == 91:
            after = _skip_blanks(data, position, end)
            if after < 0:
                return num_found, UNCLOSED_COMMENT, -1 - after
            position = after
            continue
        elif byte == 39:
            opened = position
            position += 1
            while position < end and data[position] != 39:
                position += 1
            if position == end:
                return num_found, UNCLOSED_QUOTE, opened
        position += 1
    return num_found, OK, 0


@njit(cache=True, nogil=True)
def _hash_bytes(data: np.ndarray, start: int, end: int) -> np.uint64:
    """FNV-1a, folded."""
    value = np.uint64(14695981039346656037)
    for i in range(start, end):
        value = (value ^ np.uint64(data[i])) * np.uint64(1099511628211)
    return value ^ (value >> np.uint64(32))


@njit(cache=True, nogil=True)
def fill_slots(names: np.ndarray, offsets: np.ndarray, slots: np.ndarray) -> None:
    """Make the hash table of distinct labels; ``slots`` comes filled with -1, its size a power of two."""
    mask = np.uint64(slots.shape[0] - 1)
    for i in range(offsets.shape[0] - 1):
        slot = _hash_bytes(names, offsets[i], offsets[i + 1]) & mask
        while slots[slot] >= 0:
            slot = (slot + np.uint64(1)) & mask
        slots[slot] = i


@njit(cache=True, nogil=True)
def _look_up(
    data: np.ndarray, start: int, end: int, names: np.ndarray, offsets: np.ndarray, slots: np.ndarray
) -> int:
    """Index of a label, or -1."""
    mask = np.uint64(slots.shape[0] - 1)
    slot = _hash_bytes(data, start, end) & mask
    while slots[slot] >= 0:
        index = slots[slot]
        first = offsets[index]
        if offsets[index + 1] - first == end - start:
            same = True
            for i in range(end - start):
                if names[first + i] != data[start + i]:
                    same = False
                    break
            if same:
                return index
        slot = (slot + np.uint64(1)) & mask
    return -1


@njit(cache=True, nogil=True)
def _read_label(data: np.ndarray, position: int, end: int, buffer: np.ndarray) -> tuple[int, int, int]:
    """Label at ``position``: its length, its first byte or -1, the position after it (-1: quote not closed).

    An unquoted label lies in ``data`` from its first byte; a quoted one (first byte -1) is put into
    ``buffer`` with doubled quotes made single, cut at the buffer's size, which is more than any known label
    has.
    """
    if data[position] != 39:
        first = position
        while position < end and not _IS_STRUCTURE[data[position]]:
            position += 1
        last = position
        while last > first and _IS_BLANK[data[last - 1]]:
            last -= 1
        return last - first, first, position
    position += 1
    length = 0
    while position < end:
        if data[position] == 39:
            if position + 1 < end and data[position + 1] == 39:
                position += 1
            else:
                return length, -1, position + 1
        if length < buffer.shape[0]:
            buffer[length] = data[position]
            length += 1
        position += 1
    return length, -1, -1


@njit(cache=True, nogil=True)
def _find_taxon(
    data: np.ndarray, start: int, length: int, buffer: np.ndarray, exact: tuple, relaxed: tuple
) -> int:
    """Taxon of a label: by its exact bytes, else with underscores read as spaces; -1 if there is none."""
    source, first = data, start
    if start < 0:
        source, first = buffer, 0
    index = _look_up(source, first, first + length, exact[0], exact[1], exact[2])
    if index >= 0:
        return exact[3][index]
    if length >= buffer.shape[0]:
        return -1
    for i in range(length):
        byte = source[first + i]
        buffer[i] = 32 if byte == 95 else byte
    index = _look_up(buffer, 0, length, relaxed[0], relaxed[1], relaxed[2])
    return -1 if index < 0 else relaxed[3][index]


@njit(cache=True, nogil=True)
def parse_trees(
    data: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    exact: tuple,
    relaxed: tuple,
    num_taxa: int,
    children_out: np.ndarray,
    lengths_out: np.ndarray,
) -> tuple[int, int, int]:
    """Parse the texts ``data[starts[t]:ends[t]]`` into canonical topologies and branch lengths.

    Branches without a length get NaN. ``exact`` and ``relaxed`` are hash tables (names, offsets, slots,
    taxa). Returns kind, tree and position of the first error, kind OK if there is none. Each tree is read
    with the root it was written with, a root of two children is dissolved into one branch, and the branches
    on the way from the root to the last leaf are turned.
    """
    last_leaf = num_taxa - 1
    top_number = 2 * num_taxa - 3
    parent = np.empty(2 * num_taxa - 1, np.int32)
    length = np.empty(2 * num_taxa - 1, np.float64)
    seen_in = np.full(num_taxa, -1, np.int64)
    open_children = np.empty((num_taxa + 1, 3), np.int32)
    open_count = np.empty(num_taxa + 1, np.int64)
    open_position = np.empty(num_taxa + 1, np.int64)
    children = np.empty((num_taxa - 2, 2), np.int32)
    num_children = np.empty(num_taxa - 2, np.int64)
    stack = np.empty(num_taxa, np.int32)
    smallest = np.empty(2 * num_taxa - 2, np.int32)
    new_node = np.empty(2 * num_taxa - 2, np.int32)
    buffer = np.empty(exact[4], np.uint8)

    for t in range(starts.shape[0]):
        position, end = starts[t], ends[t]
        depth, num_leaves, next_node = 0, 0, num_taxa
        node = -1  # the node just completed; -1 where one must begin
        may_have_label = False
        may_have_length = False
        while True:
            position = _skip_blanks(data, position, end)
            if position < 0:
                return UNCLOSED_COMMENT, t, -1 - position
            if position >= end:
                break
            byte = data[position]
            if node < 0:
                if byte == 40:
                    if depth == num_taxa:
                        return NESTED_TOO_DEEP, t, position
                    open_count[depth] = 0
                    open_position[depth] = position
                    depth += 1
                    position += 1
                    continue
                if depth == 0:
                    return NO_BRACKET, t, position
                if byte != 39 and _IS_STRUCTURE[byte]:
                    return EMPTY_LABEL, t, position
                size, first, after = _read_label(data, position, end, buffer)
                if after < 0:
                    return UNCLOSED_QUOTE, t, position
                node = _find_taxon(data, first, size, buffer, exact, relaxed)
                if node < 0:
                    return UNKNOWN_TAXON, t, position
                if seen_in[node] == t:
                    return DUPLICATE_TAXON, t, position
                seen_in[node] = t
                num_leaves += 1
                length[node] = np.nan
                may_have_label, may_have_length = False, True
                position = after
            elif byte == 58:
                if not may_have_length:
                    return UNEXPECTED_TEXT, t, position
                number_at = _skip_blanks(data, position + 1, end)
                if number_at < 0:
                    return UNCLOSED_COMMENT, t, -1 - number_at
                value, after = _read_number(data, number_at, end)
                if after < 0 or not np.isfinite(value):
                    return BAD_LENGTH, t, number_at
                if after < end and not _IS_STRUCTURE[data[after]] and not _IS_BLANK[data[after]]:
                    return BAD_LENGTH, t, number_at
                length[node] = value
                may_have_label, may_have_length = False, False
                position = after
            elif byte == 44 or byte == 41:
                if depth == 0:
                    return (EXTRA_BRACKET if byte == 41 else TEXT_AFTER_TREE), t, position
                level = depth - 1
                if open_count[level] < 3:
                    open_children[level, open_count[level]] = node
                open_count[level] += 1
                position += 1
                if byte == 44:
                    node = -1
                    continue
                if open_count[level] == 1:
                    return ONE_CHILD, t, open_position[level]
                if open_count[level] > (3 if level == 0 else 2):
                    return MULTIFURCATION, t, open_position[level]
                node = next_node
                next_node += 1
                for j in range(open_count[level]):
                    parent[open_children[level, j]] = node
                length[node] = np.nan
                may_have_label, may_have_length = True, True
                depth -= 1
            elif may_have_label:
                size, first, after = _read_label(data, position, end, buffer)
                if after < 0:
                    return UNCLOSED_QUOTE, t, position
                if after == position:
                    return UNEXPECTED_TEXT, t, position
                may_have_label = False
                position = after
            else:
                return (TEXT_AFTER_TREE if depth == 0 else UNEXPECTED_TEXT), t, position
        if depth > 0:
            return UNCLOSED_BRACKET, t, open_position[depth - 1]
        if node < 0:
            return NO_BRACKET, t, starts[t]
        if num_leaves < num_taxa:
            return MISSING_TAXON, t, open_position[0]

        root = node
        if open_count[0] == 2:
            below, beside = open_children[0, 0], open_children[0, 1]
            if beside < num_taxa:
                below, beside = beside, below
            parent[below] = beside
            length[below] += length[beside]
            root = beside
        node = parent[last_leaf]
        carried = length[last_leaf]
        top = node
        above = last_leaf
        while True:
            following, own = parent[node], length[node]
            parent[node] = above
            length[node] = carried
            carried = own
            above = node
            if node == root:
                break
            node = following
        num_children[:] = 0
        for v in range(top_number + 1):
            if v != last_leaf and v != top:
                row = parent[v] - num_taxa
                children[row, num_children[row]] = v
                num_children[row] += 1
        canonicalise_tree(children, top, children_out[t], new_node, stack, smallest)
        if lengths_out.shape[0] > 0:
            lengths_out[t, last_leaf] = length[last_leaf]
            for v in range(top_number + 1):
                if v != last_leaf and v != top:
                    lengths_out[t, new_node[v]] = length[v]
    return OK, -1, -1
