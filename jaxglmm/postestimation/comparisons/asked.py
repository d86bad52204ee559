"""Marginal means, slopes and joint tests of a fit, from what was asked for."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import ArgumentError, DataError, NotApplicableError
from jaxglmm._pandas import pd
from jaxglmm.postestimation.comparisons.grid import (
    Grid,
    keys_of,
    mapping,
    reference_grid,
)
from jaxglmm.postestimation.comparisons.marginal_means import MarginalMeans, combined
from jaxglmm.postestimation.comparisons.shown import Shown, on_response
from jaxglmm.postestimation.comparisons.transformed import transformation
from jaxglmm.postestimation.prediction import grids
from jaxglmm.postestimation.prediction.marginal_effects import (
    counted_data,
    new_rows,
    own_offset,
    warn_of_inestimable,
)
from jaxglmm.postestimation.prediction.means import MeanRows, Means, difference

if TYPE_CHECKING:
    from jaxglmm.fitting.fitted_model import FittedModel

STEP = 1e-4  # of a slope, in ranges of the variable
TYPES = ("link", "response")


def marginal_means(
    means: Means,
    specs: Any,
    by: Any = None,
    *,
    at: Mapping | None = None,
    weights: Any = "equal",
    type: str = "link",
    level: float = 0.95,
    df: float | None = None,
) -> MarginalMeans:
    """Means of the combinations of some variables; see ``Fit.means``."""
    shown = _shown(means, type)
    grid, data = _grid(means, at)

    def rows() -> MeanRows:
        return means.of(_cells(means, data, grid))

    if means.of_response and not means.is_link and not shown.plain:
        # cells are turned back one by one, and averaged after

        def turned() -> MeanRows:
            return shown.transformed(rows(), not hasattr(means, "covariance"))

        free = on_response(means)
        return _over(free, grid, specs, by, weights, level, df, Shown(), turned)
    return _over(means, grid, specs, by, weights, level, df, shown, rows)


def trends(
    means: Means,
    variable: str,
    specs: Any = (),
    by: Any = None,
    *,
    at: Mapping | None = None,
    weights: Any = "equal",
    level: float = 0.95,
    df: float | None = None,
) -> MarginalMeans:
    """Slopes of the linear predictor; see ``Fit.trends``."""
    data = counted_data(means.fit)
    coded = set().union(*(t.factors for t in means.fit.design.fixed_terms))
    used = _used(means)
    if not isinstance(variable, str) or variable not in used:
        raise DataError(
            f"trends({_arguments.shown(variable)}): the fixed effects have no such "
            f"variable; they have {', '.join(sorted(used)) or 'none'}"
        )
    if variable in coded or not grids.is_number(data[variable]):
        raise NotApplicableError(
            f"trends({variable!r}): the variable is a factor, which has levels and no "
            f"slope; means({variable!r}) has their means"
        )
    grid, data = _grid(means, at, without=(variable,))
    step = STEP * float(np.ptp(data[variable])) or STEP

    def rows() -> MeanRows:
        x = grid.data[variable]
        ends = [grid.data.assign(**{variable: x + s * step}) for s in (1.0, -1.0)]
        above, below = (means.of(_cells(means, data, grid, end)) for end in ends)
        found = difference(above, below, means.change(above, below), 2 * step)
        return MeanRows(
            found.value,
            found.jacobian,
            np.zeros(len(found.value)),
            found.full,
            found.blind,
        )

    note = f"Slopes in {variable}"
    shown = Shown(_shown(means, "link").link, difference=True)
    return _over(means, grid, specs, by, weights, level, df, shown, rows, note)


def _shown(means: Means, type: str) -> Shown:
    _arguments.choice("type", type, TYPES)
    link = means.link if means.is_link else None
    own = transformation(means.fit.design.response) if means.of_response else None
    return Shown(own or link).turned(type == "response")


def _grid(
    means: Means, at: Mapping | None, without: Sequence[str] = ()
) -> tuple[Grid, pd.DataFrame]:
    data = counted_data(means.fit)
    return reference_grid(means.fit, data, at, without), data


def _cells(means: Means, data: pd.DataFrame, grid: Grid, changed: Any = None):
    """Rows of the design of the cells."""
    offset = np.full(len(grid.data), own_offset(means.fit, data).mean())
    return new_rows(means, grid.data if changed is None else changed, offset)


def _over(
    means: Means,
    grid: Grid,
    specs: Any,
    by: Any,
    weights: Any,
    level: float,
    df: float | None,
    shown: Shown,
    rows: Callable[[], MeanRows],
    note: str = "",
) -> MarginalMeans:
    """Means of the rows of a grid over what is not asked for."""
    _arguments.level(level)
    df = checked_df(df)
    specs, by = _asked(specs, by, grid, _used(means))
    specs = [n for n in grid.with_parents(specs) if n not in by]
    names = [*specs, *by]
    weight, over = grid.weights(names, weights)
    keys, W = _averages(grid, specs, by, weight)
    found = combined(rows(), W)
    notes = [note] if note else []
    if over:
        notes.append(
            f"Averaged over {', '.join(over)}" + _interacting(means.fit, names, over)
        )
    out = MarginalMeans(
        means=means,
        rows=found,
        keys=keys,
        factors=tuple(specs),
        by=tuple(by),
        shown=shown,
        level=level,
        df=df,
        notes=tuple(notes),
    )
    warn_of_inestimable(means, found, "marginal means")
    return out


def checked_df(df: Any) -> float | None:
    """A positive number, which may be infinite, or None."""
    if df is None:
        return None
    known = _arguments.is_finite(df) or (_arguments.is_number(df) and df == np.inf)
    if not known or not df > 0:
        raise ArgumentError(f"df={_arguments.shown(df)} must be a positive number")
    return float(df)


def _interacting(fit: FittedModel, names: Sequence[str], over: Sequence[str]) -> str:
    """What to beware of: a mean over a factor that the asked one interacts with."""
    both = any(
        t.variables & set(names) and t.variables & set(over)
        for t in fit.design.fixed_terms
    )
    return ", with which there are interactions" if both and names else ""


def _used(means: Means) -> set[str]:
    """Variables of the fixed effects."""
    return set().union(*(t.variables for t in means.fit.design.fixed_terms))


def _asked(
    specs: Any, by: Any, grid: Grid, used: set[str]
) -> tuple[list[str], list[str]]:
    """Names of variables; a text may be a formula, ``a * b | c``."""
    if isinstance(specs, str) and specs not in grid.axes:
        left, bar, right = specs.strip().removeprefix("~").partition("|")
        specs = _split(left)
        if bar:
            if by is not None:
                raise ArgumentError(
                    f"by={by!r} and {right.strip()!r} after | say the same"
                )
            by = _split(right)
    specs = _arguments.names("specs", specs, meaning="a variable's name")
    by = [] if by is None else _arguments.names("by", by, meaning="a variable's name")
    for name in [*specs, *by]:
        if name not in grid.axes:
            known = name in used and name in grid.data
            hint = (
                f"it is a number, held at {grid.data[name].iloc[0]:.4g}: give values "
                f"by at={{{name!r}: [...]}}, or ask for trends({name!r})"
                if known and grids.is_number(grid.data[name])
                else _what_there_is(grid, used)
            )
            raise DataError(f"{name!r} has no means here; {hint}")
    both = [n for n in specs if n in by]
    if both:
        raise ArgumentError(f"{both[0]!r} is asked for twice, and in by=")
    return list(dict.fromkeys(specs)), list(dict.fromkeys(by))


def _what_there_is(grid: Grid, used: set[str]) -> str:
    """What may be asked for in place of a name that is none."""
    if grid.axes:
        return f"there are {', '.join(grid.axes)}"
    numbers = [n for n in grid.data if n in used and grids.is_number(grid.data[n])]
    if not numbers:
        return (
            "the fixed effects have no variable: means() without a name has the mean "
            "of all"
        )
    return (
        f"the fixed effects have no factor, and numbers ({', '.join(numbers)}) have "
        f"means where values are given, at={{{numbers[0]!r}: [...]}}, and slopes, "
        f"trends({numbers[0]!r})"
    )


def _split(text: str) -> list[str]:
    for sign in "*+:":
        text = text.replace(sign, ",")
    return [name for part in text.split(",") if (name := part.strip()) and name != "1"]


def _averages(
    grid: Grid, specs: Sequence[str], by: Sequence[str], weight: np.ndarray
) -> tuple[pd.DataFrame, np.ndarray]:
    """Keys of the combinations, the first variable changing fastest, and weights."""
    names = [*specs, *by]
    cells = grid.data
    if not names:
        return pd.DataFrame({"mean": ["overall"]}), _normal(weight[None])
    here: dict[tuple, list[int]] = {}
    for i, key in enumerate(keys_of(cells, names)):
        here.setdefault(key, []).append(i)
    order = {n: {v: k for k, v in enumerate(cells[n].drop_duplicates())} for n in names}
    if any(n in grid.parents for n in specs):  # levels within those they are nested in
        order_of = [
            *by[::-1],
            *(p for n in specs for p in grid.parents.get(n, ())),
            *specs,
        ]
    else:
        order_of = names[::-1]
    place = {n: k for k, n in enumerate(names)}
    keys = sorted(here, key=lambda c: tuple(order[n][c[place[n]]] for n in order_of))
    W = np.zeros((len(keys), len(cells)))
    for k, key in enumerate(keys):
        W[k, here[key]] = weight[here[key]]
    frame = pd.DataFrame(
        {
            n: pd.Series([k[j] for k in keys], dtype=cells[n].dtype)
            for j, n in enumerate(names)
        }
    )
    return frame, _normal(W)


def _normal(W: np.ndarray) -> np.ndarray:
    total = W.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, W / total, np.nan)


# Joint tests --------------------------------------------------------------------------


def joint_tests(
    means: Means, by: Any = None, *, at: Mapping | None = None, df: float | None = None
) -> pd.DataFrame:
    """A test of every term's contrasts over the grid; see ``Fit.joint_tests``."""
    fit, data, df = means.fit, counted_data(means.fit), checked_df(df)
    terms = fit.design.fixed_terms
    coded = set().union(*(t.factors for t in terms))
    used = _used(means)
    wide = dict(mapping(at))
    for name in used:  # the difference of a number: its mean and one more
        if name not in wide and grids.is_number(data[name]) and name not in coded:
            centre = float(data[name].mean())
            wide[name] = [centre - 1.0, centre + 1.0]
    grid = reference_grid(fit, data, wide)
    by = [] if by is None else _asked((), by, grid, used)[1]
    cells = means.of(_cells(means, data, grid))
    if not hasattr(means, "covariance"):
        raise NotApplicableError(
            "joint_tests() are tests, and a posterior has none: look at the "
            "p_direction of means().contrast()"
        )
    nothing = 1e-10 * np.abs(cells.jacobian).max(initial=0.0)
    free = [n for n in grid.axes if n not in by]
    groups = _groups(grid.data, by)
    found = []
    for names in _subsets(terms, free, grid):
        for key, i in groups:
            W = _interactions(grid, names, i)
            if not len(W):
                continue
            rows = combined(cells, W)
            rows = rows.take(np.flatnonzero(~means.inestimable(rows)))
            if not np.abs(rows.jacobian).max(initial=0.0) > nothing:
                continue
            row = {"term": ":".join(names), **dict(zip(by, key, strict=True))}
            found.append(row | means.joint(rows, df))
    columns = ["term", *by, "num_df", "den_df", "statistic", "p_value"]
    return pd.DataFrame(found, columns=columns)


def _groups(cells: pd.DataFrame, by: Sequence[str]) -> list[tuple[tuple, np.ndarray]]:
    if not by:
        return [((), np.arange(len(cells)))]
    found: dict[tuple, list[int]] = {}
    for i, key in enumerate(keys_of(cells, by)):
        found.setdefault(key, []).append(i)
    return [(key, np.array(i)) for key, i in found.items()]


def _subsets(terms: Any, free: Sequence[str], grid: Grid) -> list[tuple[str, ...]]:
    """Sets of variables that some term has together, smallest first.

    A nested factor stands with what it is nested in.
    """
    sets = set()
    for term in terms:
        own = [n for n in free if n in term.variables]
        for size in range(1, len(own) + 1):
            sets |= set(itertools.combinations(own, size))
    whole = [
        s
        for s in sets
        if all(p in s or p not in free for n in s for p in grid.parents.get(n, ()))
    ]
    place = {n: k for k, n in enumerate(free)}
    return sorted(whole, key=lambda s: (len(s), [place[n] for n in s]))


def _interactions(grid: Grid, names: Sequence[str], i: np.ndarray) -> np.ndarray:
    """Weights (k, cells): differences of differences of neighbouring levels.

    Those of a nested factor within what it is nested in, which is not compared then.
    """
    cells = grid.data
    nested = {p for n in names for p in grid.parents.get(n, ())}
    rows: dict[tuple, np.ndarray] = {}
    for key, j in _groups(cells.iloc[i], names):
        row = np.zeros(len(cells))
        row[i[j]] = 1.0 / len(j)
        rows[key] = row
    order = {n: {v: k for k, v in enumerate(cells[n].drop_duplicates())} for n in names}
    for place, name in enumerate(names):
        if name in nested:
            continue
        apart: dict[tuple, list[tuple[int, np.ndarray]]] = {}
        for key, row in rows.items():
            rest = (*key[:place], None, *key[place + 1 :])
            at = order[name].get(key[place], key[place])
            apart.setdefault(rest, []).append((at, row))
        rows = {}
        for rest, some in apart.items():
            some.sort(key=lambda pair: pair[0])
            for (_, a), (later, b) in itertools.pairwise(some):
                rows[(*rest[:place], ("step", later), *rest[place + 1 :])] = b - a
    return np.array(list(rows.values())).reshape(-1, len(cells))
