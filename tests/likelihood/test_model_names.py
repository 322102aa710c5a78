"""Names of substitution models: what they mean, that they are written as they are read, and messages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vbpi_mix.errors import ConfigurationError
from vbpi_mix.likelihood.model_names import ALIASES, CLASSES, EQUAL_FREQUENCIES, ModelSpec, parse_model

ONES = (1.0,) * 6


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("JC", ModelSpec("JC", ONES, "equal")),
        ("jc69+g", ModelSpec("JC", ONES, "equal", 4)),
        ("F81", ModelSpec("F81", ONES, "empirical")),
        ("K2P+FQ", ModelSpec("K80", None, "equal")),
        ("K80{2}", ModelSpec("K80", (1.0, 2.0, 1.0, 1.0, 2.0, 1.0), "equal")),
        ("HKY85", ModelSpec("HKY", None, "empirical")),
        ("HKY+FO+I", ModelSpec("HKY", None, "estimated", has_invariable=True)),
        ("TN93{2,5}+FQ", ModelSpec("TN", (1.0, 2.0, 1.0, 1.0, 5.0, 1.0), "equal")),
        ("SYM{1,2,1.5,3.7,2.8}", ModelSpec("SYM", (1.0, 2.0, 1.5, 3.7, 2.8, 1.0), "equal")),
        ("GTR+F+G4", ModelSpec("GTR", None, "empirical", 4)),
        ("GTR+G8{0.5}+I{0.1}+F", ModelSpec("GTR", None, "empirical", 8, 0.5, True, 0.1)),
        ("GTR{1,2,3,4,5,6}", ModelSpec("GTR", (1.0, 2.0, 3.0, 4.0, 5.0, 6.0), "empirical")),
        (
            "HKY{2.5} + F{0.3,0.2,0.15,0.35}",
            ModelSpec("HKY", (1.0, 2.5, 1.0, 1.0, 2.5, 1.0), (0.3, 0.2, 0.15, 0.35)),
        ),
        ("GTR+F{0.1/0.2/0.3/0.4}", ModelSpec("GTR", None, (0.1, 0.2, 0.3, 0.4))),
    ],
)
def test_meaning(name, expected):
    assert parse_model(name) == expected


@st.composite
def fields(draw):
    """Arguments of a `ModelSpec`, which is made outside: its types are checked by drawing random numbers."""
    family = draw(st.sampled_from(sorted(CLASSES)))
    classes = CLASSES[family]
    positive = st.floats(1e-3, 1e3)
    fixed = ONES
    if max(classes) > 0:
        by_class = (1.0, *draw(st.tuples(*[positive] * max(classes))))
        fixed = draw(st.sampled_from([None, tuple(by_class[k] for k in classes)]))
    frequencies = "equal"
    if family not in EQUAL_FREQUENCIES:
        frequencies = draw(st.sampled_from(["equal", "empirical", "estimated", (0.125, 0.25, 0.125, 0.5)]))
    num_categories = draw(st.sampled_from([1, 2, 4, 17]))
    has_invariable = draw(st.booleans())
    return (
        family,
        fixed,
        frequencies,
        num_categories,
        draw(st.none() | positive) if num_categories > 1 else None,
        has_invariable,
        draw(st.none() | st.floats(0.0, 0.99)) if has_invariable else None,
    )


@given(fields())
def test_names_are_read_as_they_are_written(values):
    spec = ModelSpec(*values)
    assert parse_model(spec.name) == spec


def test_aliases_are_families():
    assert set(ALIASES.values()) <= set(CLASSES)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("WAG", "expected one of JC, F81, .* got 'WAG'"),
        ("", "is no name of a family; names are like"),
        ("GTR+R4", r"cannot read \+R4; names are like"),
        ("GTR+G4+G4", "says twice what num_categories is: leave one out"),
        ("GTR+F+FO", "says twice what frequencies is"),
        ("JC{2}", r"JC has no rates to fix, got \{2\}"),
        ("HKY{1,2}", r"HKY takes 1 rates in braces, got \{1,2\}"),
        ("GTR{1,2}", "GTR takes 5 rates in braces"),
        ("HKY{0}", "the rates must be positive"),
        ("K80+F", "K80 has equal frequencies; with others it is HKY"),
        ("GTR+FO{0.1,0.2,0.3,0.4}", r"fixed frequencies are \+F\{A,C,G,T\}, not \+FO"),
        ("GTR+F{0.1,0.2,0.3}", "expected four positive frequencies that sum to one, got 0.1, 0.2, 0.3"),
        ("GTR+F{1,1,1,1}", "expected four positive frequencies that sum to one"),
        ("GTR+I{1}", r"must be in \[0, 1\), got 1.0"),
        ("GTR+G1", "expected 2 to 64 gamma categories, got 1"),
        ("GTR+G4{0}", "the gamma shape must be positive, got 0.0"),
        ("GTR+G4{1,2}", r"\+G4 takes one number in braces"),
        ("GTR+G4{1", r"cannot read \+G4\{1"),
    ],
)
def test_messages(name, message):
    with pytest.raises(ConfigurationError, match=message):
        parse_model(name)
