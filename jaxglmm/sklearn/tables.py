"""X, slopes and labels as a table and a formula: some models take nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def names_of(names: list[Any] | None, width: int) -> list[str]:
    """Names of the columns of X in a table: x0, x1, ... where they have none."""
    own = [f"x{j}" for j in range(width)] if names is None else names
    return [str(name).replace("`", "'") for name in own]


def table_of(
    X: np.ndarray,
    names: list[Any] | None,
    slopes: Mapping[str, np.ndarray],
    labels: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Columns of a fit or of new data.

    Args:
        X: (n, p) numbers.
        names: of the columns of X; None where it has none.
        slopes: name -> (n,) columns whose slopes vary.
        labels: factor -> (n,).
    """
    own = {name: X[:, j] for j, name in enumerate(names_of(names, X.shape[1]))}
    return {**own, **slopes, **labels}


def formula_of(
    response: str,
    columns: list[str],
    slopes: Mapping[str, Any],
    labels: Mapping[str, Any],
    intercepts: tuple[bool, bool],
    correlated: bool,
) -> str:
    """The formula of the mean; intercepts: fixed, and of the random effects."""
    fixed, random = (str(int(one)) for one in intercepts)
    effects = " + ".join([random, *map(quoted, slopes)])
    bar = "|" if correlated or not slopes else "||"
    terms = [f"({effects} {bar} {quoted(name)})" for name in labels]
    return f"{quoted(response)} ~ {' + '.join([fixed, *map(quoted, columns), *terms])}"


def quoted(name: str) -> str:
    """A name as formulas read it whatever is in it."""
    return f"`{name}`"


def unlike(word: str, taken: Any) -> str:
    """A word that is not taken."""
    while word in taken:
        word += "_"
    return word
