"""Arrays to a ``Design``: response, design matrix, labels of groups.

The form of ``lmm(y, X, groups={"subject": ids}, random_effects={"subject": ["1", "t"]},
random_data={"t": t})``: no formula, no table. Names come from frames where there are
some; otherwise a column of ones is ``(Intercept)`` and the others are ``X1``, ``X2``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxglmm._errors import DataError, ModelError
from jaxglmm._pandas import pd
from jaxglmm.formula.against_table import refuse_trials
from jaxglmm.formula.align import by_labels, row_labels
from jaxglmm.formula.array_recipe import ArrayRecipe
from jaxglmm.formula.build import checked_offset, checked_weights
from jaxglmm.formula.design import Design, FixedTerm, RandomTerm
from jaxglmm.formula.encode import check_finite
from jaxglmm.formula.given import OFFSET, TRIALS, WEIGHTS, beside
from jaxglmm.formula.groups import learn_groups, refuse_one_level
from jaxglmm.formula.matrix import as_matrix
from jaxglmm.formula.missing import complete_rows
from jaxglmm.formula.notices import listed
from jaxglmm.formula.parse import Grouping
from jaxglmm.formula.rank import drop_dependent
from jaxglmm.formula.reading import not_numeric
from jaxglmm.formula.response import BINOMIAL, NUMERIC
from jaxglmm.formula.responses import response_of
from jaxglmm.formula.tables import Column, Columns, as_table, read_column

INTERCEPT = "(Intercept)"


def design_from_arrays(
    y,
    X,
    groups,
    *,
    random_effects: Mapping[str, Sequence[str]] | None = None,
    random_data: Mapping[str, Any] | None = None,
    weights=None,
    offset=None,
    correlated: bool | Mapping[str, bool] = True,
    missing: str = "drop",
    allow_nonnumeric_response: bool = False,
    family_kind: str = NUMERIC,
    trials=None,
    order: Sequence[Any] | None = None,
) -> Design:
    """Make a design of arrays.

    Args:
        y: (n,) response; for a binomial one also (n, 2), successes and failures.
        X: (n, p) matrix or frame of fixed effects, its intercept column included; (n,)
            is one column.
        groups: dict factor -> (n,) labels (or a frame of them). Several factors are
            crossed; nesting is by labels.
        random_effects: dict factor -> terms, ``"1"`` for the intercept and names of
            ``random_data`` or of columns of X; default an intercept for every factor.
        random_data: dict name -> (n,) values of the slopes.
        weights: (n,) prior weights; see ``design_from_formula``.
        offset: (n,) known part of the linear predictor.
        correlated: False, or a dict factor -> bool: columns of a term independent.
        missing: ``"drop"`` rows with a missing value anywhere, or ``"raise"``.
        allow_nonnumeric_response: as in ``design_from_formula``.
        family_kind: as in ``design_from_formula``.
        order: as in ``design_from_formula``.
        trials: (n,) or a number: trials of a binomial response.

    Raises:
        DataError: naming the argument that does not fit and the remedy.
        ModelError: a grouping factor with one level, more columns than rows.

    Example:
        >>> design = design_from_arrays(
        ...     [1.0, 2, 4, 3], np.ones((4, 1)), {"g": ["a", "a", "b", "b"]}
        ... )
        >>> design.x_names, design.terms[0].codes.tolist()
        (('(Intercept)',), [0, 0, 1, 1])
    """
    row_names = _row_names(y, X, groups)
    left = _left_columns(y, family_kind)
    n = len(left[0])
    matrix, names, frame_index = _matrix(by_labels("X", X, row_names), n)
    labels = _groups(groups, n, row_names)
    slopes = _slopes(random_data, n, row_names)
    parts = _parts(random_effects, labels, slopes, names)
    diagonal = _diagonal(correlated, labels)

    used = {name for terms in parts.values() for name in terms}
    slopes = {name: slopes[name] for name in sorted(used.intersection(slopes))}
    if trials is not None:
        refuse_trials(family_kind)
    extras = _extras(weights, offset, trials, n, row_names)
    fixed = {f"X[{name}]": _column(name, matrix[:, j]) for j, name in enumerate(names)}
    every = dict(zip(("y", "y[1]"), left, strict=False))
    every |= {**fixed, **labels, **slopes, **extras}
    rows = complete_rows(every, n, missing)
    matrix = matrix if rows is None else matrix[rows]
    left = [_kept(column, rows) for column in left]
    labels, slopes, extras = (
        {name: _kept(column, rows) for name, column in part.items()}
        for part in (labels, slopes, extras)
    )
    w = checked_weights(extras.get(WEIGHTS), rows)
    form = "failures" if len(left) == 2 else "plain"
    asked = (extras.get(TRIALS), w, rows, allow_nonnumeric_response)
    response = response_of((family_kind, order), left, form, *asked)
    for j, name in enumerate(names):
        check_finite(f"X[{name!r}]", (matrix[:, j],), rows)
    names = _named_ones(names, matrix)

    terms, coded = _random_terms(parts, diagonal, labels, slopes, matrix, names, rows)
    kept_X, kept_names, kept, dropped, untold = drop_dependent(matrix, names, weights=w)
    columns = {name: _column(name, matrix[:, j]) for j, name in enumerate(names)}
    training = Columns({**columns, **labels, **slopes})
    learnt = tuple((t.label, t.names, t.covariance) for t in terms)
    return Design(
        **response.of_design,
        X=kept_X,
        x_names=kept_names,
        terms=tuple(terms),
        response=_name(left),
        offset=checked_offset(extras.get(OFFSET), rows),
        fixed_terms=_fixed_terms(names, kept),
        dropped_columns=dropped,
        null_space=untold,
        n_missing=n - len(matrix),
        rows=rows,
        index=_index(y, frame_index, rows),
        recipe=ArrayRecipe(names, kept, learnt, coded, offset is not None, training),
        variables=training,
    )


def _fixed_terms(names: tuple[str, ...], kept: tuple[int, ...]) -> tuple:
    """A term a column."""
    return tuple(
        FixedTerm(
            name,
            frozenset() if name == INTERCEPT else frozenset((name,)),
            (kept.index(j),) if j in kept else (),
            full=(j,),
        )
        for j, name in enumerate(names)
    )


def _kept(column: Column, rows: np.ndarray | None) -> Column:
    # ``take`` copies; where every row stays the user's arrays are still shared
    return column.owned() if rows is None else column.take(rows)


def _random_terms(
    parts: Mapping[str, tuple[str, ...]],
    diagonal: Mapping[str, bool],
    labels: Mapping[str, Column],
    slopes: Mapping[str, Column],
    matrix: np.ndarray,
    names: tuple[str, ...],
    rows: np.ndarray | None,
) -> tuple[list[RandomTerm], dict[str, Any]]:
    """One term a factor, and the codings of the factors."""
    terms, coded = [], {}
    for factor, columns in parts.items():
        coding, codes = learn_groups(Grouping(factor, (factor,)), labels)
        refuse_one_level(coding)
        coded[factor] = coding
        Z = np.empty((len(matrix), len(columns)))
        for k, name in enumerate(columns):
            Z[:, k] = _slope(name, slopes, matrix, names)
            check_finite(f"random_data[{name!r}]", (Z[:, k],), rows)
        kind = "diag" if diagonal[factor] and len(columns) > 1 else "us"
        term = RandomTerm(factor, factor, columns, codes, Z, coding.levels, kind)
        terms.append(term)
    return terms, coded


def _row_names(y, X, groups) -> pd.Index | None:
    """Labels of the rows: those of y, of X, or of the first labels of groups."""
    beside_y = groups.values() if isinstance(groups, Mapping) else [groups]
    found = (row_labels(values) for values in (y, X, *beside_y))
    return next((labels for labels in found if labels is not None), None)


def _left_columns(y, family_kind: str) -> list[Column]:
    """y as one column, or as successes and failures; of three rows at least."""
    left = _columns_of(y, family_kind)
    if len(left[0]) < 3:
        raise DataError(f"y: need at least 3 observations, got {len(left[0])}")
    return left


def _columns_of(y, family_kind: str) -> list[Column]:
    if _shape(y)[1:] != (2,):
        return [_response_column(y)]
    if family_kind != BINOMIAL:
        raise DataError(
            f"y must be one column, got shape {_shape(y)}: a two-column [successes, "
            "failures] response is only valid for family='binomial' and "
            "'betabinomial'"
        )
    if hasattr(y, "columns"):
        table = as_table(y)
        return [table.column(name) for name in table.names]
    pair = y if isinstance(y, np.ndarray) else as_matrix("y", y)
    return [read_column(name, pair[:, j]) for j, name in enumerate(("y", "failures"))]


def _shape(values) -> tuple[int, ...]:
    """As NumPy says it; that of rows of different lengths is that of a column."""
    try:
        return np.shape(values)
    except ValueError:
        return (len(values),)


def _name(left: list[Column]) -> str:
    if len(left) == 1 or left[0].name == "y":
        return left[0].name
    return f"cbind({left[0].name}, {left[1].name})"


def _response_column(y) -> Column:
    shape = _shape(y)
    scalar = shape == () and not hasattr(y, "__len__")
    if y is None or scalar or isinstance(y, str):
        raise DataError("y must be an array of values, one a row")
    if isinstance(y, pd.DataFrame) and y.shape[1] == 1:
        y = y.iloc[:, 0]
    if len(shape) == 2 and shape[1] != 1:
        raise DataError(f"y must be one column, got shape {shape}")
    if isinstance(y, list | tuple) and len(shape) == 2:
        y = [row[0] for row in y]
    name = getattr(y, "name", None)
    return read_column(str(name) if isinstance(name, str) else "y", y)


def _matrix(X, n: int) -> tuple[np.ndarray, tuple[str, ...], object]:
    """X as float64 (n, p), names of its columns, labels of its rows."""
    if X is None:
        raise DataError("X is None; for a mean alone pass np.ones((n, 1))")
    names: tuple[str, ...] | None = None
    index = None
    if isinstance(X, pd.Series):
        X = X.to_frame(X.name if X.name is not None else 0)
    records = isinstance(X, np.ndarray) and bool(X.dtype.names)
    if isinstance(X, pd.DataFrame | Mapping) or hasattr(X, "columns") or records:
        table = as_table(X)
        _same_rows("X", table.n, n)
        columns = [table.column(name) for name in table.names]
        for column in columns:
            if column.values is None or column.kind == "time":
                raise DataError(
                    f"X: column {column.name!r} is not numeric: {not_numeric(column)}. "
                    "Code it as numbers, or use a formula, which codes factors"
                )
        matrix = np.empty((n, len(columns)))
        for j, column in enumerate(columns):
            matrix[:, j] = column.values
        named = records or isinstance(X, Mapping)
        named = named or any(isinstance(c, str) for c in X.columns)
        return matrix, table.names if named else _default_names(matrix), table.index
    matrix = as_matrix("X", X)
    _same_rows("X", len(matrix), n)
    return matrix, names or _default_names(matrix), index


def _default_names(matrix: np.ndarray) -> tuple[str, ...]:
    """``(Intercept)`` for the first column of ones, ``X1``, ``X2`` for the rest."""
    names, count = [], 0
    for j in range(matrix.shape[1]):
        column = matrix[:, j]
        ones = bool(len(column)) and column[0] == 1.0 and bool((column == 1.0).all())
        if ones and INTERCEPT not in names:
            names.append(INTERCEPT)
        else:
            count += 1
            names.append(f"X{count}")
    return tuple(names)


def _named_ones(names: tuple[str, ...], matrix: np.ndarray) -> tuple[str, ...]:
    """The usual names of a column of ones in frames, in the form used everywhere."""
    return tuple(
        INTERCEPT
        if name in ("const", "Intercept", "intercept")
        and INTERCEPT not in names
        and (matrix[:, j] == 1.0).all()
        else name
        for j, name in enumerate(names)
    )


def _groups(groups, n: int, row_names) -> dict[str, Column]:
    """Grouping factors as columns."""
    records = isinstance(groups, np.ndarray) and bool(groups.dtype.names)
    if isinstance(groups, pd.Series):
        groups = {str(groups.name or "group"): groups}
    elif records or (hasattr(groups, "columns") and not isinstance(groups, Mapping)):
        table = as_table(groups)
        groups = {name: table.fetch(name) for name in table.names}
    elif hasattr(groups, "__len__") and not isinstance(groups, Mapping | str):
        name = getattr(groups, "name", None)
        groups = {name if isinstance(name, str) and name else "group": groups}
    if not isinstance(groups, Mapping):
        raise DataError(
            "groups must be a dict {factor: labels}, such as {'subject': ids}; got "
            f"{type(groups).__name__}"
        )
    if not groups:
        raise DataError(
            "groups is empty: at least one grouping factor is required, such as "
            "{'subject': ids}"
        )
    found = _read("groups", groups, row_names)
    for name, column in found.items():
        if len(column) != n:
            raise DataError(
                f"groups[{name!r}] has {len(column)} elements, expected {n} "
                "(matching y)"
            )
    return found


def _read(argument: str, given: Mapping, row_names) -> dict[str, Column]:
    """Columns by name, in the order of the rows."""
    return {
        str(name): read_column(
            str(name), by_labels(f"{argument}[{str(name)!r}]", raw, row_names)
        )
        for name, raw in given.items()
    }


def _slopes(random_data, n: int, row_names) -> dict[str, Column]:
    """Numeric columns for slopes."""
    if random_data is None:
        return {}
    if not isinstance(random_data, Mapping):
        if not hasattr(random_data, "columns"):
            raise DataError("random_data must be a dict {name: values}")
        table = as_table(random_data)
        random_data = {name: table.fetch(name) for name in table.names}
    found = _read("random_data", random_data, row_names)
    for name, column in found.items():
        if len(column) != n:
            raise DataError(
                f"random_data[{name!r}] has {len(column)} elements, expected {n} "
                "(matching y)"
            )
        if column.values is None or column.kind == "time":
            raise DataError(
                f"random_data[{name!r}] is not numeric: {not_numeric(column)}"
            )
    return found


def _parts(random_effects, labels, slopes, names) -> dict[str, tuple[str, ...]]:
    """Columns of each factor's term, the intercept by its name."""
    if random_effects is None:
        return dict.fromkeys(labels, (INTERCEPT,))
    if not isinstance(random_effects, Mapping):
        raise DataError(
            "random_effects must be a dict {factor: terms}, such as "
            "{'subject': ['1', 'time']}"
        )
    parts: dict[str, tuple[str, ...]] = {}
    for factor, wanted in random_effects.items():
        if factor not in labels:
            raise DataError(
                f"random_effects: factor {factor!r} is not in groups; available: "
                f"{listed(list(labels))}"
            )
        wanted = [wanted] if isinstance(wanted, str | int) else list(wanted)
        columns = [
            INTERCEPT if str(t) in ("1", INTERCEPT) else str(t)
            for t in wanted
            if str(t) not in ("0", "-1")
        ]
        if not columns:
            raise DataError(
                f"random_effects[{factor!r}] is empty; ['1'] is an intercept"
            )
        if len(set(columns)) < len(columns):
            raise DataError(f"random_effects[{factor!r}] repeats a term: {columns}")
        for term in columns:
            if term != INTERCEPT and term not in slopes and term not in names:
                available = [*slopes, *(x for x in names if x != INTERCEPT)]
                raise DataError(
                    f"random_effects[{factor!r}]: slope {term!r} needs its values in "
                    f"random_data (or a column of X of that name); available: "
                    f"{listed(available)}"
                )
        parts[factor] = tuple(columns)
    # Factors without an entry get their intercept, so that no label is lost in silence.
    return {factor: parts.get(factor, (INTERCEPT,)) for factor in labels}


def _diagonal(correlated, labels) -> dict[str, bool]:
    if isinstance(correlated, Mapping):
        strange = [k for k in correlated if k not in labels]
        if strange:
            raise DataError(
                f"correlated: factor {strange[0]!r} is not in groups; available: "
                f"{listed(list(labels))}"
            )
        return {factor: not correlated.get(factor, True) for factor in labels}
    return dict.fromkeys(labels, not correlated)


def _extras(weights, offset, trials, n: int, rows) -> dict[str, Column]:
    given = {WEIGHTS: weights, OFFSET: offset, TRIALS: trials}
    found = {label: beside(label, values, n, rows) for label, values in given.items()}
    return {label: column for label, column in found.items() if column is not None}


def _slope(name: str, slopes, matrix, names) -> np.ndarray:
    if name in slopes:
        return np.asarray(slopes[name].values, np.float64)
    if name in names:
        return matrix[:, names.index(name)]
    if name == INTERCEPT:
        return np.ones(len(matrix))
    raise ModelError(f"no values for slope {name!r}")


def _column(name: str, values: np.ndarray) -> Column:
    return Column(name, "number", values)


def _same_rows(label: str, rows: int, n: int) -> None:
    if rows != n:
        raise DataError(f"{label} has {rows} rows, expected {n} (matching y)")


def _index(y, frame_index, rows):
    index = y.index if isinstance(y, pd.Series | pd.DataFrame) else frame_index
    if rows is None or index is None:
        return index
    return index[rows]
