"""Smooths as fixed and random columns: what a penalty does not see, and the rest.

A smooth f(x) = B(x) theta with the penalty theta'S theta is a mixed model (Wood 2017,
section 5.8): the directions in which S is zero are fixed effects, the others, scaled by
the roots of S's eigenvalues, independent random effects with one standard deviation. B
is centred first, so that the intercept is the mean. Of tensor products the penalties of
the margins have the same eigenvectors, so that the covariance is diagonal for any
smoothing parameters: 1 / sum_j a_j / sd_j^2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from jaxglmm._errors import DataError, FormulaError
from jaxglmm.formula import smooth_bases as bases
from jaxglmm.formula.text import call, find_name, shown, split, unquoted

WORDS = ("s", "te")
KINDS = ("tp", "cr", "ps")
COLUMNS_OF = {"s": 10, "te": 5}
MOST = 500  # columns of one basis


@dataclass(frozen=True)
class SmoothTerm:
    """A smooth in a formula: ``s(x, z, by=f, k=10, bs="tp")``, before the data."""

    word: str
    variables: tuple[str, ...]
    by: str | None = None
    k: tuple[int, ...] = ()
    kinds: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """``s(x)``, ``te(x,z)``."""
        return f"{self.word}({','.join(self.variables)})"

    @property
    def names(self) -> tuple[str, ...]:
        """All columns that are read."""
        return self.variables if self.by is None else (*self.variables, self.by)


def read_smooth(text: str) -> SmoothTerm:
    """``s(x, k=20)`` as a term.

    Raises:
        FormulaError: what cannot be read, and what there is.
    """
    word, inside = call(text)
    variables, options = [], {}
    for _, raw in split(inside, ","):
        piece = raw.strip()
        key, is_option, value = (x.strip() for x in piece.partition("="))
        if is_option:
            options[key] = value
        elif piece:
            variables.append(_name(piece, text))
    unknown = [key for key in options if key not in ("by", "k", "bs")]
    if unknown or not variables:
        raise FormulaError(
            f"{shown(text)}: a smooth has variables and by=, k=, bs=, as in "
            f"{word}(x, k=10)" + (f", not {unknown[0]}=" if unknown else "")
        )
    d = len(variables)
    kinds = tuple(x.strip("'\" ") for x in _listed(options.get("bs", "")))
    strange = [x for x in kinds if x not in KINDS]
    if strange:
        raise FormulaError(
            f"{shown(text)}: bs={strange[0]!r} is not one of 'tp', 'cr', 'ps' and, of "
            "a grouping factor, 're'"
        )
    if word == "s" and d > 1 and kinds not in ((), ("tp",)):
        raise FormulaError(
            f"{shown(text)}: bs={kinds[0]!r} is for one variable; "
            f"te({', '.join(variables)}) is a tensor product of such"
        )
    if word == "te" and d < 2:
        raise FormulaError(f"{shown(text)}: te() is for several variables; take s()")
    count = d if word == "te" else 1
    k = tuple(_whole(x, text) for x in _listed(options.get("k", "")))
    if len(k) > count or len(kinds) > count:
        raise FormulaError(f"{shown(text)}: one k= and one bs= a margin, at most")
    if len(set(variables)) < d:
        raise FormulaError(f"{shown(text)}: a variable stands there twice")
    by = options.get("by")
    by = None if by in (None, "NA", "None") else _name(by, text)
    default = "cr" if word == "te" else "tp"
    kinds = kinds * count if len(kinds) == 1 else kinds or (default,) * count
    if not k:
        k = (COLUMNS_OF[word] * (1 if count > 1 or d == 1 else 3 ** (d - 1)),)
    k = k * count if len(k) == 1 else k
    if not len(k) == len(kinds) == count:
        raise FormulaError(f"{shown(text)}: k= and bs= are for {count} margins")
    return SmoothTerm(word, tuple(variables), by, k, kinds)


def _listed(text: str) -> list[str]:
    """``c(4, 5)``, ``[4, 5]``, ``4``."""
    head, inside = call(text)
    if head == "c":
        text = inside
    elif text[:1] in "[(" and text[-1:] in "])":
        text = text[1:-1]
    return [x.strip() for _, x in split(text, ",") if x.strip()] if text else []


def _whole(text: str, whole: str) -> int:
    if not text.isdigit() or not 3 <= int(text) <= MOST:
        raise FormulaError(
            f"{shown(whole)}: k={text} must be a whole number from 3 to {MOST}"
        )
    return int(text)


def _name(text: str, whole: str) -> str:
    name = unquoted(text) if text.startswith("`") else text
    if not text.startswith("`") and not all(c.isalnum() or c in "._" for c in name):
        raise FormulaError(
            f"{shown(whole)}: {shown(text)} must be the name of a column; compute it "
            "as a column first"
        )
    return name


# With the data ------------------------------------------------------------------------


@dataclass(frozen=True)
class SmoothCurve:
    """A smooth that has seen its data, of one level of ``by`` where that is a factor.

    label: ``s(x)``, ``s(x):fa``; margins: what the bases know
    fixed: (k, m) and random: (k, q), from the basis to columns of X and of Z
    shares: (t, q) penalties of the random columns by margin; () of one
    level: of ``by``; None where that is a number
    """

    label: str
    variables: tuple[str, ...]
    by: str | None
    level: Any
    margins: tuple[Mapping[str, Any], ...]
    fixed: np.ndarray
    random: np.ndarray
    shares: np.ndarray

    def basis(self, x: np.ndarray, by: np.ndarray | None) -> np.ndarray:
        """(n, k) at variables x (n, d)."""
        return (
            _basis(self.margins, x)
            if by is None
            else (by[:, None] * _basis(self.margins, x))
        )

    def columns(
        self, x: np.ndarray, by: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Fixed (n, m) and random (n, q) columns."""
        B = self.basis(x, by)
        return B @ self.fixed, B @ self.random

    @property
    def fixed_names(self) -> tuple[str, ...]:
        """``s(x).1``."""
        return tuple(f"{self.label}.{j + 1}" for j in range(self.fixed.shape[1]))

    @property
    def covariance(self) -> str:
        """Its word in ``model.covariances``."""
        if not len(self.shares):
            return "known(s)"
        rows = (" ".join(repr(float(x)) for x in row) for row in self.shares)
        return f"te({';'.join(rows)})"


def _basis(margins: Sequence[Mapping[str, Any]], x: np.ndarray) -> np.ndarray:
    if len(margins) == 1:
        return bases.columns(margins[0], x)
    each = [bases.columns(m, x[:, [j]]) for j, m in enumerate(margins)]
    return reduce(
        lambda a, b: (a[:, :, None] * b[:, None, :]).reshape(len(a), -1), each
    )


def learned(
    term: SmoothTerm, x: np.ndarray, by: np.ndarray | None, levels: Any
) -> list[SmoothCurve]:
    """The smooths of a term: one, or one a level of ``by``.

    x: (n, d); by: numbers, or codes where there are ``levels``

    Raises:
        DataError: too few different values.
    """
    for j, name in enumerate(term.variables):
        if not np.ptp(x[:, j]) > 0:
            raise DataError(
                f"{term.label}: {name!r} has one value; there is no curve to find"
            )
    if term.word == "te":
        found = [
            bases.learn(kind, x[:, [j]], k, f"{term.label}, {name}")
            for j, (kind, k, name) in enumerate(
                zip(term.kinds, term.k, term.variables, strict=True)
            )
        ]
        penalties = [S / np.linalg.eigvalsh(S)[-1] for _, S in found]
        nulls = [bases.unpenalised(kind, 1) for kind in term.kinds]
    else:
        found = [bases.learn(term.kinds[0], x, term.k[0], term.label)]
        penalties = [found[0][1]]
        nulls = [bases.unpenalised(term.kinds[0], x.shape[1])]
    margins = tuple(state for state, _ in found)
    B = _basis(margins, x)
    centred = levels is not None or by is None or np.ptp(by) == 0
    Z = _centred(B) if centred else np.eye(B.shape[1])
    if len(penalties) > 1:
        parts = _tensor(penalties, nulls, Z)
    else:
        parts = _single(_scaled(penalties[0], B), nulls[0] - int(centred), Z)
    if levels is None:
        label = term.label if by is None else f"{term.label}:{term.by}"
        return [SmoothCurve(label, term.variables, term.by, None, margins, *parts)]
    return [
        SmoothCurve(
            f"{term.label}:{term.by}{level}",
            term.variables,
            term.by,
            level,
            margins,
            *parts,
        )
        for level in levels
    ]


def _centred(B: np.ndarray) -> np.ndarray:
    """(k, k - 1) orthonormal, orthogonal to the sums of the columns."""
    total = B.sum(axis=0)
    return np.linalg.qr(total[:, None], mode="complete")[0][:, 1:]


def _scaled(S: np.ndarray, B: np.ndarray) -> np.ndarray:
    """The penalty in the size of the basis, so that one standard deviation fits all."""
    size = float(np.abs(B).sum(axis=1).max()) ** 2
    return S * (size / np.abs(S).sum(axis=0).max())


def _single(
    S: np.ndarray, null: int, Z: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    value, U = _eigen(Z.T @ S @ Z)
    free, bound = U[:, :null], U[:, null:]
    return Z @ free, Z @ bound / np.sqrt(value[null:]), np.zeros((0, 0))


def _tensor(
    penalties: Sequence[np.ndarray], nulls: Sequence[int], Z: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns whose penalties are diagonal, whatever the smoothing parameters."""
    eigen = [_eigen(S) for S in penalties]
    values = []
    for (value, _), null in zip(eigen, nulls, strict=True):
        value[:null] = 0.0
        values.append(value)
    G = reduce(np.kron, [U for _, U in eigen])
    sizes = [len(v) for v in values]
    shares = []
    for j, v in enumerate(values):
        ones = [np.ones(n) for n in sizes]
        ones[j] = v
        shares.append(reduce(np.kron, ones))
    every = np.stack(shares)
    bound = every.sum(axis=0) > 0
    total = G @ (every.sum(axis=0)[:, None] * G.T)
    value, U = _eigen(Z.T @ total @ Z)
    null = len(value) - int(bound.sum())
    free, range_ = Z @ U[:, :null], Z @ U[:, null:]
    M = G[:, bound].T @ range_
    return free, np.linalg.solve(M.T, range_.T).T, every[:, bound]


def _eigen(S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rising eigenvalues, and vectors with a sign of their own."""
    value, U = np.linalg.eigh((S + S.T) / 2)
    sign = np.sign(U[np.argmax(np.abs(U), axis=0), np.arange(len(U))])
    return value, U * sign


def resolved(term: SmoothTerm, known: Sequence[str]) -> SmoothTerm:
    """With the columns that its names mean."""
    found = [find_name(name, known) for name in term.names]
    missing = [n for n, f in zip(term.names, found, strict=True) if f is None]
    if missing:
        raise FormulaError(
            f"{term.label}: no column {missing[0]!r} in the data; there are "
            f"{', '.join(map(repr, list(known)[:12]))}"
        )
    names = [name for name in found if name is not None]
    d = len(term.variables)
    by = None if term.by is None else names[d]
    return SmoothTerm(term.word, tuple(names[:d]), by, term.k, term.kinds)
