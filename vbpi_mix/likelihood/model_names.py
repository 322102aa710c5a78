"""Names of substitution models, as IQ-TREE writes them: ``GTR+F+I+G4``, ``HKY{2.5}+F{0.3,0.2,0.15,0.35}``.

A name begins with a family, which says what exchangeabilities are equal:

==========================  =====================================================  ==============
family                      exchangeabilities                                      frequencies
==========================  =====================================================  ==============
``JC``, ``JC69``            all equal                                              equal
``F81``                     all equal                                              any
``K80``, ``K2P``            transitions (AG, CT), transversions                    equal
``HKY``, ``HKY85``          transitions, transversions                             any
``TN``, ``TN93``            AG, CT, transversions                                  any
``SYM``                     six different ones                                     equal
``GTR``                     six different ones                                     any
==========================  =====================================================  ==============

Fixed values follow in braces: ``HKY{kappa}``, ``TN{AG,CT}`` relative to transversions;
``GTR{AC,AG,AT,CG,CT}`` relative to GT, or with it. Then come, in any order:

- ``+F``: empirical frequencies, the default of families of any frequencies, as in IQ-TREE; ``+FO``: estimated
  ones; ``+FQ``: equal ones; ``+F{A,C,G,T}``: these;
- ``+I``: invariable sites; ``+I{p}``: with this probability;
- ``+G``: rates from a gamma distribution in four categories; ``+G8``: in eight; ``+G4{a}``: of this shape.

Families of equal frequencies refuse others: HKY with equal frequencies is K80, and so on.
"""

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from vbpi_mix.errors import ConfigurationError

Frequencies: TypeAlias = Literal["equal", "empirical", "estimated"] | tuple[float, ...]

CLASSES = {
    "JC": (0, 0, 0, 0, 0, 0),
    "F81": (0, 0, 0, 0, 0, 0),
    "K80": (0, 1, 0, 0, 1, 0),
    "HKY": (0, 1, 0, 0, 1, 0),
    "TN": (0, 1, 0, 0, 2, 0),
    "SYM": (0, 1, 2, 3, 4, 5),
    "GTR": (0, 1, 2, 3, 4, 5),
}
"""Of each family, the class of the exchangeabilities AC, AG, AT, CG, CT, GT; those of a class are equal."""
EQUAL_FREQUENCIES = {"JC": "F81", "K80": "HKY", "SYM": "GTR"}
"""Families of equal frequencies, and what each is called with others."""
ALIASES = {"JC69": "JC", "K2P": "K80", "HKY85": "HKY", "TN93": "TN"}
DEFAULT_CATEGORIES = 4
MAX_CATEGORIES = 64

_NUMBER = r"[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?"
_BRACES = rf"(?:\{{({_NUMBER}(?:[,/]{_NUMBER})*)\}})?"
_FAMILY = re.compile(rf"([A-Z0-9]+){_BRACES}")
_PART = re.compile(rf"(FO|FQ|F|I|G(?P<categories>[0-9]*)){_BRACES}")
_CURE = "names are like GTR+F+G4, HKY{2.5}+F{0.3,0.2,0.15,0.35} or K80+I: see the guide to models."


@dataclass(frozen=True)
class ModelSpec:
    """A substitution model: what it fixes, and what is estimated.

    Attributes:
        family: Key of `CLASSES`.
        exchangeabilities: Fixed AC, AG, AT, CG, CT, GT; None if they are estimated. Ones where all are equal.
        frequencies: Fixed probabilities of A, C, G, T; or where they come from.
        num_categories: Number of gamma categories; 1 for equal rates.
        shape: Fixed shape of the gamma distribution; None if it is estimated, or rates are equal.
        has_invariable: Whether there are invariable sites.
        invariable: Fixed probability of them; None if it is estimated, or there are none.
    """

    family: str
    exchangeabilities: tuple[float, ...] | None
    frequencies: Frequencies
    num_categories: int = 1
    shape: float | None = None
    has_invariable: bool = False
    invariable: float | None = None

    @property
    def is_estimated(self) -> bool:
        """Whether there is anything to estimate; empirical frequencies are not."""
        return (
            self.exchangeabilities is None
            or self.frequencies == "estimated"
            or (self.num_categories > 1 and self.shape is None)
            or (self.has_invariable and self.invariable is None)
        )

    @property
    def name(self) -> str:
        """The name that `parse_model` reads as this model, in the order of IQ-TREE."""
        text = self.family
        if self.exchangeabilities is not None and max(CLASSES[self.family]) > 0:
            text += _in_braces(_fixed_of(self.family, self.exchangeabilities))
        if self.family not in EQUAL_FREQUENCIES:
            match self.frequencies:
                case "equal":
                    text += "+FQ"
                case "empirical":
                    text += "+F"
                case "estimated":
                    text += "+FO"
                case values:
                    text += "+F" + _in_braces(values)
        if self.has_invariable:
            text += "+I" + ("" if self.invariable is None else _in_braces((self.invariable,)))
        if self.num_categories > 1:
            text += f"+G{self.num_categories}" + ("" if self.shape is None else _in_braces((self.shape,)))
        return text


def parse_model(name: str) -> ModelSpec:
    """Read the name of a substitution model; upper and lower case are the same.

    Args:
        name: As the module's docstring says.

    Raises:
        ConfigurationError: The name is of no model that there is.
    """
    first, *parts = re.sub(r"\s", "", name).upper().split("+")
    found = _FAMILY.fullmatch(first)
    if found is None:
        raise ConfigurationError(f"Model {name!r}: {first!r} is no name of a family; {_CURE}")
    family = ALIASES.get(found[1], found[1])
    if family not in CLASSES:
        raise ConfigurationError(
            f"Model {name!r}: expected one of {', '.join([*CLASSES, *ALIASES])}, got {found[1]!r}."
        )
    fields: dict[str, object] = {}
    for part in parts:
        new = _read_part(name, family, part)
        if twice := new.keys() & fields.keys():
            raise ConfigurationError(f"Model {name!r} says twice what {sorted(twice)[0]} is: leave one out.")
        fields |= new
    fields.setdefault("frequencies", "equal" if family in EQUAL_FREQUENCIES else "empirical")
    return ModelSpec(family, _read_exchangeabilities(name, family, found[2]), **fields)  # type: ignore[arg-type]


def _read_exchangeabilities(name: str, family: str, text: str | None) -> tuple[float, ...] | None:
    if max(CLASSES[family]) == 0:
        if text is not None:
            raise ConfigurationError(f"Model {name!r}: {family} has no rates to fix, got {{{text}}}.")
        return (1.0,) * 6
    if text is None:
        return None
    values = _numbers(text)
    wanted = max(CLASSES[family])
    if len(values) == wanted + 1 == 6:
        pass
    elif len(values) != wanted:
        raise ConfigurationError(f"Model {name!r}: {family} takes {wanted} rates in braces, got {{{text}}}.")
    elif wanted == 5:
        values = (*values, 1.0)
    else:
        values = (1.0, *values)
    if min(values) <= 0:
        raise ConfigurationError(f"Model {name!r}: the rates must be positive, got {{{text}}}.")
    return tuple(values[group] for group in CLASSES[family])


def _fixed_of(family: str, exchangeabilities: tuple[float, ...]) -> tuple[float, ...]:
    """What stands in braces for fixed exchangeabilities."""
    if max(CLASSES[family]) == 5:
        return exchangeabilities
    base = exchangeabilities[0]
    at = [CLASSES[family].index(group) for group in range(1, max(CLASSES[family]) + 1)]
    return tuple(exchangeabilities[k] / base for k in at)


def _read_part(name: str, family: str, part: str) -> dict[str, object]:
    """Fields of a model that one part of its name sets."""
    found = _PART.fullmatch(part)
    if found is None:
        raise ConfigurationError(f"Model {name!r}: cannot read +{part}; {_CURE}")
    kind, text = found[1], found[3]
    values = None if text is None else _numbers(text)
    if kind.startswith("F"):
        return {"frequencies": _read_frequencies(name, family, kind, values)}
    if values is not None and len(values) != 1:
        raise ConfigurationError(f"Model {name!r}: +{kind} takes one number in braces, got {{{text}}}.")
    if kind == "I":
        if values is not None and not 0.0 <= values[0] < 1.0:
            raise ConfigurationError(
                f"Model {name!r}: the probability of invariable sites must be in [0, 1), got {values[0]}."
            )
        return {"has_invariable": True, "invariable": None if values is None else values[0]}
    num_categories = int(found["categories"] or DEFAULT_CATEGORIES)
    if not 2 <= num_categories <= MAX_CATEGORIES:
        raise ConfigurationError(
            f"Model {name!r}: expected 2 to {MAX_CATEGORIES} gamma categories, got {num_categories}."
        )
    if values is not None and values[0] <= 0.0:
        raise ConfigurationError(f"Model {name!r}: the gamma shape must be positive, got {values[0]}.")
    return {"num_categories": num_categories, "shape": None if values is None else values[0]}


def _read_frequencies(name: str, family: str, kind: str, values: tuple[float, ...] | None) -> Frequencies:
    if family in EQUAL_FREQUENCIES and kind != "FQ":
        raise ConfigurationError(
            f"Model {name!r}: {family} has equal frequencies; with others it is {EQUAL_FREQUENCIES[family]}, "
            f"so write that instead."
        )
    if kind != "F":
        if values is not None:
            raise ConfigurationError(f"Model {name!r}: fixed frequencies are +F{{A,C,G,T}}, not +{kind}.")
        return "estimated" if kind == "FO" else "equal"
    if values is None:
        return "empirical"
    if len(values) != 4 or min(values) <= 0.0 or abs(sum(values) - 1.0) > 1e-3:
        raise ConfigurationError(
            f"Model {name!r}: expected four positive frequencies that sum to one, "
            f"got {', '.join(map(str, values))}."
        )
    return tuple(value / sum(values) for value in values)


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(number) for number in re.split("[,/]", text))


def _in_braces(values: tuple[float, ...]) -> str:
    return "{" + ",".join(f"{value!r}".removesuffix(".0") for value in values) + "}"
