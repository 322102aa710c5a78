"""Damage to files: what crashes, editors, transfers and bad luck do to them."""

import random
import re
from collections.abc import Sequence

FRAGMENTS = (
    *(symbol.encode() for symbol in "\n \t'\"[];{}()=:,.><#*-éß猫\0\u2028\r"),
    b"\xff", b"\xef\xbb\xbf", b"\r\n", b"\x1f\x8b", b"#NEXUS\n", b"CLUSTAL\n", b"matrix", b"begin data;",
    b"begin trees;", b"end;", b"interleave", b"missing=", b"matchchar=A ", b"nchar=0", b"ntax=", b"4 10\n",
    b"0 0\n", b"999999999 999999999999\n", b"translate", b"tree x = ", b"[&W 0]", b"[&W 1/3]", b"[&U]",
    b"[p = 2]", b"nan", b"inf", b"-1", b"1e999", b"1e-999", b"0", b"null", b"true", b"[]", b"{}", b'""',
    b"9" * 400, b"(" * 3000, b"[" * 3000, b"_uD800_", b"_u110000_", b"#taxa\t", b"probability\ttopology\n",
    b"replicate\tcount\ttopology\n",
)  # fmt: skip
"""What readers may stumble over."""


NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
NUMBERS = (
    b"0",
    b"-1",
    b"1e999",
    b"-1e-999",
    b"nan",
    b"inf",
    b"null",
    b"1e308",
    b"0.5",
    b"7",
    b"9" * 400,
    b"",
)
"""What stands in the place of numbers."""


def mutated(content: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """Content with a few changes, mostly one or two, of random kinds at random places.

    Args:
        content: What to damage.
        others: Other contents, pieces of which may be put into it.
        chance: Source of randomness.
    """
    for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 5))):
        start, stop = _span(len(content), chance)
        match chance.randrange(11):
            case 0:  # a bit
                content = _with_byte(content, chance, lambda byte: byte ^ (1 << chance.randrange(8)))
            case 1:  # a byte
                content = _with_byte(content, chance, lambda byte: chance.randrange(256))
            case 2:
                content = content[:start] + content[stop:]
            case 3:
                content = content[:start] + chance.choice(FRAGMENTS) + content[start:]
            case 4:
                content = content[:start] + chance.choice(FRAGMENTS) + content[stop:]
            case 5:  # a span again, or many times
                content = content[:stop] + content[start:stop] * chance.choice((1, 1, 1, 20)) + content[stop:]
            case 6:  # cut short
                content = content[: chance.choice((stop, len(content) - chance.randint(0, 40)))]
            case 7 | 8:
                content = _with_lines(content, chance)
            case 9:
                numbers = list(NUMBER.finditer(content))
                if numbers:
                    one = chance.choice(numbers)
                    content = content[: one.start()] + chance.choice(NUMBERS) + content[one.end() :]
            case 10:
                other = chance.choice(others)
                first, last = _span(len(other), chance)
                content = content[:start] + other[first:last] + content[stop:]
    return content


def _with_lines(content: bytes, chance: random.Random) -> bytes:
    """Content with two lines in each other's place, or with one of them once more or gone."""
    lines = content.split(b"\n")
    one, other = chance.randrange(len(lines)), chance.randrange(len(lines))
    match chance.randrange(3):
        case 0:
            lines[one], lines[other] = lines[other], lines[one]
        case 1:
            lines.insert(other, lines[one])
        case 2:
            del lines[one]
    return b"\n".join(lines)


def _span(size: int, chance: random.Random) -> tuple[int, int]:
    """Ends of a piece of something, usually a short piece."""
    start = chance.randint(0, size)
    if chance.random() < 0.85:
        return start, min(size, start + chance.randint(0, 12))
    return start, chance.randint(start, size)


def _with_byte(content: bytes, chance: random.Random, change) -> bytes:
    if not content:
        return content
    place = chance.randrange(len(content))
    return content[:place] + bytes([change(content[place])]) + content[place + 1 :]
