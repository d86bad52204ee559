"""Words for covariances of random effects, ``ar1(0 + time | g)``, in two dialects.

glmmTMB has a word for each structure; lme4 has ``het=`` and ``hom=`` beside ``ar1``,
``cs`` and ``diag``. Positions of the effects come from the levels of a factor, one step
apart, or from numbers: whole steps in ``ar1`` and ``toep``, times and coordinates in
``ou``, ``exp``, ``gau`` and ``mat``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from jaxglmm._errors import DataError, FormulaError, ModelError, ScaleWarning
from jaxglmm.formula.levels import by_text_alone
from jaxglmm.formula.notices import listed, warn
from jaxglmm.formula.terms import Term
from jaxglmm.formula.text import call, shown, split

STEPS = ("ar1", "hetar1", "toep", "homtoep")
KERNELS = ("ou", "exp", "gau", "mat")
WORDS = ("us", "diag", "homdiag", "cs", "homcs", *STEPS, *KERNELS, "rr")
# One variance for all columns: one that is never seen is known from the others.
SHARED = ("homdiag", "homcs", "ar1", "homtoep", *KERNELS, "known")
# With one row an effect these cannot be told from the residual; what to write instead.
ALIKE = {
    "homdiag": "Leave the term out",
    "homcs": "Write (1 | g), which is the same beside a residual variance",
    "homtoep": "Write ar1(), or give the structure to the residuals instead",
}
# (word, option) -> what the word means where the option is true, and where it is false
_DIALECT = {
    ("ar1", "het"): ("hetar1", "ar1"),
    ("cs", "hom"): ("homcs", "cs"),
    ("diag", "hom"): ("homdiag", "diag"),
    ("toep", "hom"): ("homtoep", "toep"),
    ("us", "hom"): (None, "us"),
}
_TRUTH = {"True": 0, "TRUE": 0, "T": 0, "False": 1, "FALSE": 1, "F": 1}
MOST_STEPS = 400  # positions of whole steps, used and unused
MOST_PLACES = 3000  # positions of a kernel


def options(word: str, text: str) -> tuple[str, str]:
    """``x | g, het=True`` of a word to ``x | g`` and the name of its structure."""
    first, *rest = [piece for _, piece in split(text, ",")]
    if not word:
        return text, ""
    name = word
    for piece in rest:
        option, _, value = (part.strip() for part in piece.partition("="))
        known = _DIALECT.get((word, option))
        if word == "rr" and option == "d":
            if not value.isdigit() or int(value) < 1:
                raise FormulaError(
                    f"rr(..., d={value}): d is a whole number, 1 or more"
                )
            name = f"rr({value})"
        elif known is not None and value in _TRUTH:
            found = known[_TRUTH[value]]
            if found is None:
                raise FormulaError(
                    f"{word}(..., {piece.strip()}): an unstructured covariance has a "
                    "variance for each column; homcs() has one in all"
                )
            name = found
        else:
            own = [o for w, o in _DIALECT if w == word] + ["d"] * (word == "rr")
            there = f"; it has {own[0]}=" if own else ""
            raise FormulaError(f"{word}() has no option {shown(piece.strip())}{there}")
    return first, "rr(2)" if name == "rr" else name


_NUM_FACTOR = "numFactor"


def columns(kind: str, text: str) -> str:
    """The left side of the bar; of positions without the intercept.

    ``numFactor(x, y)``, glmmTMB's word for coordinates, is ``x + y``.
    """
    pieces = []
    for sign, piece in split(text, "+-"):
        word, inside = call(piece.strip())
        if word == _NUM_FACTOR:
            piece = " + ".join(x.strip() for _, x in split(inside, ","))
        if piece.strip():
            pieces.append(f"{sign or '+'} {piece.strip()}")
    bare = [re.sub(r"\s", "", p) for p in pieces]
    explicit = any(p in ("+1", "+0", "-1") for p in bare)
    if kind in KERNELS or (kind in STEPS and not explicit and len(pieces) == 1):
        pieces = [p for p, b in zip(pieces, bare, strict=True) if b != "+1"]
        pieces.insert(0, "0")
    return " ".join(pieces).removeprefix("+ ")


@dataclass(frozen=True)
class Positions:
    """Where the columns of a term lie: q places, of k coordinates each.

    variables: names of the coordinates; places: (q, k).
    """

    variables: tuple[str, ...]
    places: np.ndarray

    @property
    def names(self) -> tuple[str, ...]:
        """``t[1.5]``; of several coordinates ``x,y[0,2.5]``."""
        word = ",".join(self.variables)
        return tuple(
            f"{word}[{','.join(f'{x:.12g}' for x in row)}]" for row in self.places
        )

    def spelled(self, kind: str) -> str:
        """The structure with its coordinates, as ``model.covariances`` reads it."""
        if kind in STEPS:
            return kind
        inside = ";".join(" ".join(map(repr, row)) for row in self.places.tolist())
        return f"{kind}({inside})"

    def codes(self, at: np.ndarray) -> np.ndarray:
        """(n,) which place each row of (n, k) is at, -1 for another."""
        index = {tuple(row): i for i, row in enumerate(self.places.tolist())}
        return np.array([index.get(tuple(row), -1) for row in at.tolist()], int)

    def indicators(self, at: np.ndarray) -> np.ndarray:
        """(n, q) ones at the places; a row of zeros at another."""
        codes = self.codes(at)
        Z = np.zeros((len(at), len(self.places)))
        used = codes >= 0
        Z[np.flatnonzero(used), codes[used]] = 1.0
        return Z


def variables(kind: str, terms: tuple[Term, ...], is_factor) -> tuple[str, ...] | None:
    """The atoms that are coordinates; None where the columns are what they are."""
    plain = all(len(term.atoms) == 1 for term in terms)
    numeric = plain and not any(is_factor(t.atoms[0].expr) for t in terms)
    if kind in KERNELS:
        if not numeric:
            raise FormulaError(
                f"{kind}() needs times or coordinates, which are numbers: "
                f"{kind}(0 + time | g). For the levels of a factor, one step apart, "
                "there is ar1(0 + f | g)"
            )
        if kind == "ou" and len(terms) > 1:
            raise FormulaError(
                "ou() is for times, one number a row; exp() is the same for coordinates"
            )
    elif kind not in STEPS or not numeric or len(terms) != 1:
        return None
    return tuple(term.atoms[0].expr for term in terms)


def coordinates(names: tuple[str, ...], values: Mapping) -> np.ndarray:
    """(n, k) of these atoms."""
    found = [values[name] for name in names]
    if any(len(x) != 1 for x in found):
        raise FormulaError(f"{', '.join(names)}: one number a row for each coordinate")
    return np.stack([np.asarray(x[0], float) for x in found], axis=1)


def learn(kind: str, names: tuple[str, ...], at: np.ndarray) -> Positions:
    """The places of the data; of whole steps those between as well."""
    if kind in KERNELS:
        places = np.unique(at, axis=0)
        if len(places) > MOST_PLACES:
            raise DataError(
                f"{kind}({' + '.join(names)}): {len(places):,} places that differ, at "
                f"most {MOST_PLACES:,} are fitted. Round the coordinates to a grid"
            )
        return Positions(names, places)
    if (at != np.rint(at)).any():
        first = at[at != np.rint(at)][0]
        raise DataError(
            f"{kind}({names[0]}): {first:g} is no whole number, and steps are counted. "
            "For times at any distance write ou(0 + t | g); for equal steps in the "
            f"order of the values C({names[0]})"
        )
    low, high = at.min(), at.max()
    if high - low >= MOST_STEPS:
        raise DataError(
            f"{kind}({names[0]}): from {low:g} to {high:g} there are "
            f"{int(high - low) + 1:,} steps, at most {MOST_STEPS} are fitted. Divide "
            "it by the length of a step, or write ou(0 + t | g)"
        )
    return Positions(names, np.arange(low, high + 1)[:, None])


@dataclass(frozen=True)
class Placed:
    """A term's columns: names, values (n, q), structure; ``at``: where rows are."""

    names: tuple[str, ...]
    values: np.ndarray
    covariance: str
    at: np.ndarray


def placed(
    part, is_factor, values: Mapping, state: dict, learning: bool = False
) -> Placed | None:
    """The columns of a term whose effects have positions given by numbers.

    state: where the places of the data of the fit are remembered.
    """
    kind = part.covariance
    names = variables(kind, part.terms, is_factor)
    if names is None:
        return None
    key, at = f"places {part.label}", coordinates(names, values)
    if learning:
        state[key] = learn(kind, names, at).places
    own = Positions(names, np.asarray(state[key], float))
    return Placed(own.names, own.indicators(at), own.spelled(kind), at)


def warn_of_order(kind: str, names: tuple[str, ...]) -> None:
    """Say so where steps are counted along labels in the order of texts."""
    factor = {name.partition("[")[0] for name in names}
    texts = [name.partition("[")[2].removesuffix("]") for name in names]
    if kind in STEPS and len(factor) == 1 and by_text_alone(texts):
        warn(
            f"the levels {listed(texts)} of {factor.pop()!r} are in the order of texts;"
            f" {kind} takes them as neighbours. Make the column a categorical with its "
            "levels in order",
            ScaleWarning,
        )


def refuse_posterior(design) -> None:
    """Posteriors have no prior for the loadings of factors.

    Raises:
        ModelError: naming the term.
    """
    for term in design.terms:
        if term.structure == "rr":
            raise ModelError(
                f"rr(... | {term.label}): posteriors have priors of standard "
                "deviations and correlations, and none of the loadings of factors. "
                "Write us(), or fit it by maximum likelihood (leave method= out)"
            )
