"""Persons and items of a test on one axis: what a crossed model says as a Rasch model.

logit P(right) = x'beta + b_person + b_item (Rasch 1960; De Boeck et al. 2011, Journal
of Statistical Software 39(12)): a person's ability is theta, an item's difficulty
delta, and half of the answers are right where they are equal, theta - delta = 0. Fixed
effects go to whom they describe: a column that is the same in all rows of an item is
the item's, the intercept with it; one that is the same in all rows of a person is the
person's, about its mean over persons; any other counts at its mean over rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError
from jaxglmm._pandas import pd

SAME = 1e-9  # of a column's largest value: the same in all rows


@dataclass(frozen=True)
class PersonsItems:
    """Abilities and difficulties; see ``GeneralisedFit.persons_items``.

    persons: a row a person: ability, std_error (conditional, given the parameters), n
        answers, mean of these; items: difficulty likewise, and the mean squares infit
        and outfit, near 1 where the item does what the model says
    reliability: of the abilities, their variance's share of it and of the mean squared
        error
    person_factor, item_factor: the grouping factors; link: of the axis
    """

    persons: pd.DataFrame
    items: pd.DataFrame
    reliability: float
    person_factor: str
    item_factor: str
    link: str

    def __repr__(self) -> str:
        low, high = self.items["difficulty"].min(), self.items["difficulty"].max()
        return (
            f"<{len(self.persons)} persons ({self.person_factor}), {len(self.items)} "
            f"items ({self.item_factor}) with difficulties {low:.2f} to {high:.2f}; "
            f"reliability {self.reliability:.2f}>"
        )


def persons_items(fit: Any, persons: Any, items: Any) -> PersonsItems:
    """See ``GeneralisedFit.persons_items``."""
    persons, items = _factors(fit, persons, items)
    design = fit.design
    trials = np.ones(design.n) if design.trials is None else design.trials
    rows = np.arange(design.n)[design.counted]
    codes, names = zip(*(_levels(fit, f, rows) for f in (persons, items)), strict=True)
    y, weights = design.y[rows] / trials[rows], np.asarray(trials, float)[rows]
    of_person, of_item = _fixed(fit, rows, *codes)
    theta = fit.ranef[persons].iloc[:, 0].to_numpy() + of_person
    easiness = fit.ranef[items].iloc[:, 0].to_numpy() + of_item
    tables = [
        _table(name, place, _errors(fit, factor), code, y, weights, level)
        for name, place, factor, code, level in (
            ("ability", theta, persons, codes[0], names[0]),
            ("difficulty", -easiness, items, codes[1], names[1]),
        )
    ]
    infit, outfit = _mean_squares(fit, y, weights, rows, codes[1], len(easiness))
    error = float(np.mean(tables[0]["std_error"] ** 2))
    spread = float(np.var(theta, ddof=1))
    return PersonsItems(
        tables[0],
        tables[1].assign(infit=infit, outfit=outfit),
        spread / (spread + error) if spread + error > 0 else np.nan,
        persons,
        items,
        fit.link_name,
    )


def _factors(fit: Any, persons: Any, items: Any) -> tuple[str, str]:
    """The two grouping factors; by default that of most levels are persons."""
    if fit.family.family_kind not in ("binary", "binomial"):
        raise NotApplicableError(
            f"persons_items() is for right and wrong answers, family='binomial'; this "
            f"is {fit.family_name!r}"
        )
    known = {name: frame for name, frame in fit.ranef.items() if frame.shape[1] == 1}
    known = {n: f for n, f in known.items() if f.columns[0] == "(Intercept)"}
    given = {"persons": persons, "items": items}
    for word, name in given.items():
        if name is not None and not _arguments.is_among(name, tuple(known)):
            raise NotApplicableError(
                f"{word}={_arguments.shown(name)} has no random intercept alone; "
                f"there are {', '.join(known) or 'none'}"
            )
    left = sorted(
        (n for n in known if n not in given.values()), key=lambda n: len(known[n])
    )
    if persons is None and items is None and len(left) == 2:
        items, persons = left
    elif len(left) == 1 and (persons is None) != (items is None):
        persons, items = persons or left[0], items or left[0]
    if persons is None or items is None or persons == items:
        raise NotApplicableError(
            "persons_items() needs two grouping factors with random intercepts, as "
            f"'right ~ 1 + (1 | person) + (1 | item)' has; there are "
            f"{', '.join(known) or 'none'}: say which by persons= and items="
        )
    return persons, items


def _levels(fit: Any, factor: str, rows: Any) -> tuple[np.ndarray, pd.Index]:
    """(n,) codes of the rows, in the order of ``fit.ranef``."""
    term = next(t for t in fit.design.terms if t.factor == factor)
    return np.asarray(term.codes)[rows], fit.ranef[factor].index


def _fixed(
    fit: Any, rows: Any, person: np.ndarray, item: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Fixed effects of (J,) persons, about their mean, and of (I,) items."""
    X = np.asarray(fit.design.X, float)[rows]
    beta = np.asarray(fit.coefficients, float)
    of_items = [_means(x, item) for x in X.T]
    of_persons = [_means(x, person) for x in X.T]
    there, here = np.zeros(len(of_items[0])), np.zeros(len(of_persons[0]))
    for x, b, its, theirs in zip(X.T, beta, of_items, of_persons, strict=True):
        close = SAME * np.abs(x).max()
        if np.abs(x - its[item]).max() <= close:
            there += b * its
        elif np.abs(x - theirs[person]).max() <= close:
            here += b * (theirs - theirs.mean())
            there += b * theirs.mean()
        else:
            there += b * x.mean()
    if fit.design.offset is not None:
        offset = np.broadcast_to(fit.design.offset, (fit.design.n,))
        there += np.asarray(offset)[rows].mean()
    return here, there


def _means(x: np.ndarray, codes: np.ndarray) -> np.ndarray:
    return np.bincount(codes, x) / np.bincount(codes)


def _errors(fit: Any, factor: str) -> np.ndarray:
    return np.sqrt(np.maximum(fit.ranef_cov[factor][:, 0, 0], 0.0))


def _table(name, place, error, codes, y, weights, levels) -> pd.DataFrame:
    n = np.bincount(codes, weights)
    mean = np.bincount(codes, weights * y) / n
    columns = {name: place, "std_error": error, "n": n.astype(int), "mean": mean}
    return pd.DataFrame(columns, index=levels)


def _mean_squares(fit, y, weights, rows, item, count) -> tuple[np.ndarray, np.ndarray]:
    """Infit and outfit of items (Wright and Masters 1982), at the modes."""
    p = np.asarray(fit.fitted_values, float)[rows]
    squares, variance = weights * (y - p) ** 2, p * (1 - p)
    with np.errstate(divide="ignore", invalid="ignore"):  # p may round to one
        outfit = np.bincount(item, squares / variance, count)
        infit = np.bincount(item, squares, count) / np.bincount(item, variance, count)
        return infit, outfit / np.bincount(item, minlength=count)
