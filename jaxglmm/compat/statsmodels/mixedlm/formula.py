"""``MixedLM.from_formula``: formulas and a table to the arrays of the constructor.

Formulas are statsmodels' (one-sided ones for random effects and components) or lme4's
(``y ~ x + (1 | g)``), which are translated. A component that is an indicator of levels,
alone or times numeric columns, becomes codes at once; any other is evaluated group by
group, as statsmodels does, because levels and contrasts may differ between groups.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from jaxglmm._errors import DataError, FormulaError, NotApplicableError
from jaxglmm.compat.statsmodels.mixedlm.arguments import ModelInputs, complete, in_order
from jaxglmm.compat.statsmodels.mixedlm.structure import (
    CellNames,
    Component,
    VCSpec,
    by_levels,
    from_spec,
    rows_of,
)
from jaxglmm.compat.statsmodels.patsy import Matrix, learn, response, variables
from jaxglmm.compat.statsmodels.patsy import parse as parse_patsy
from jaxglmm.compat.statsmodels.patsy.levels import is_factor, read_levels
from jaxglmm.formula.groups import RADIX, combine
from jaxglmm.formula.matrix import unmasked
from jaxglmm.formula.notices import listed, nearest
from jaxglmm.formula.parse import RandomPart, parse
from jaxglmm.formula.text import split
from jaxglmm.model.covariances import named

ATOM = re.compile(r"\s*(?:C\(\s*([^\W\d]\w*)\s*\)|([^\W\d]\w*))\s*\Z")
REQUIRED = "'groups' is a required keyword argument in MixedLM.from_formula"


@dataclass
class FormulaInputs:
    """What formulas and a table say.

    spec: of the fixed effects, makes the same columns from new data; labels, group:
    sorted labels and codes (n,); rows: of each group; n_missing: rows left out.
    """

    y: pd.Series
    X: pd.DataFrame
    spec: Matrix
    group_name: str
    groups: np.ndarray
    exog_re: pd.DataFrame | None
    re_names: list[str]
    components: list[Component]
    weights: np.ndarray | None
    frame: pd.DataFrame
    n_missing: int

    def given(self, use_sparse: bool) -> ModelInputs:
        """The same as what a model is made of."""
        exog_re = self.exog_re
        if exog_re is None and not self.components:
            exog_re = pd.DataFrame({self.group_name: np.ones(len(self.y))})
        arrays: dict[str, Any] = {
            "endog": self.y.to_numpy(float),
            "exog": self.X.to_numpy(float),
            "exog_re": None if exog_re is None else exog_re.to_numpy(float),
            "weights": None if self.weights is None else self.weights.astype(float),
        }
        complete(arrays, self.groups, "none")
        return ModelInputs(
            **arrays,
            labels=self.groups,
            components=self.components,
            spec=None,
            names=(str(self.y.name), [str(c) for c in self.X.columns]),
            re_names=self.re_names,
            original=(self.y.to_frame(), self.X),
            index=self.y.index,
            is_pandas=True,
            n_missing=self.n_missing,
            use_sparse=use_sparse,
        )


def read(
    formula: str,
    data: Any,
    re_formula: str | None,
    vc_formula: Mapping[str, str] | None,
    subset: Any,
    missing: str,
    groups: Any,
    weights: Any,
    context: Mapping[str, Any],
) -> FormulaInputs:
    """Evaluate all formulas on the rows that are used."""
    frame = as_frame(data)
    if "|" in formula:
        formula, groups, re_formula, vc_formula = translated(
            formula, frame, groups, re_formula, vc_formula
        )
    if groups is None:
        raise AttributeError(REQUIRED)
    group_name = groups if isinstance(groups, str) else "Group"
    labels = _values("groups", groups, frame)
    w = None if weights is None else np.asarray(_values("weights", weights, frame))
    frame, labels, w = _subset(frame, labels, w, subset)
    texts = [
        formula,
        *([re_formula] if re_formula else []),
        *(vc_formula or {}).values(),
    ]
    keep = _complete(frame, labels, w, texts, missing)
    if keep is not None:
        frame, labels = frame.loc[keep], labels[keep]
        w = None if w is None else w[keep]
    names = dict(context)
    y, X, spec = _fixed(formula, frame, names)
    exog_re, re_names = _random(re_formula, frame, group_name, vc_formula, names)
    components = []
    if vc_formula is not None:
        components = _components(vc_formula, frame, labels, names)
    dropped = 0 if keep is None else int((~keep).sum())
    return FormulaInputs(
        y, X, spec, group_name, labels, exog_re, re_names, components, w, frame, dropped
    )


def as_frame(data: Any) -> pd.DataFrame:
    """A pandas frame from any table."""
    if isinstance(data, pd.DataFrame):
        return data
    from jaxglmm.formula.tables import as_table

    table = as_table(data)
    columns = {name: table.column(name) for name in table.names}
    return pd.DataFrame({name: c.as_series() for name, c in columns.items()})


def _values(what: str, given: Any, frame: pd.DataFrame) -> np.ndarray:
    """Labels or weights, by name or as they are."""
    if isinstance(given, str):
        if given not in frame.columns:
            raise DataError(
                f"{what}={given!r}: no such column{nearest(given, map(str, frame))}"
            )
        given = frame[given]
    out = np.asarray(unmasked(in_order(what, given, frame.index)))
    if out.ndim != 1 or len(out) != len(frame):
        raise DataError(
            f"{what} has shape {out.shape}; the data have {len(frame)} rows"
        )
    return out


def _subset(frame, labels, weights, subset):
    """The rows asked for: booleans, positions' labels, or an index."""
    if subset is None:
        return frame, labels, weights
    chosen = pd.Series(np.arange(len(frame)), index=frame.index).loc[subset]
    rows = np.atleast_1d(chosen.to_numpy())
    w = None if weights is None else weights[rows]
    return frame.iloc[rows], labels[rows], w


def _complete(frame, labels, weights, texts, missing: str) -> np.ndarray | None:
    """Which rows to keep, None for all."""
    if missing not in ("none", "drop", "raise"):
        raise ValueError(f"missing={missing!r} must be 'none', 'drop' or 'raise'")
    used = {name for text in texts for name in variables(text)}
    columns = [c for c in frame.columns if c in used]
    keep = frame[columns].notna().all(axis=1).to_numpy() & pd.notna(labels)
    if weights is not None:
        keep = keep & pd.notna(weights)
    if keep.all():
        return None
    if missing != "drop":
        bad = [c for c in columns if frame[c].isna().any()] or ["groups or weights"]
        raise DataError(
            f"{int((~keep).sum())} of {len(keep)} rows have missing values (in "
            f"{listed(bad)}); missing='drop' leaves them out"
        )
    if not keep.any():
        raise DataError("no row is without missing values")
    return keep


def _fixed(formula: str, frame: pd.DataFrame, context: Mapping[str, Any]):
    """Response, design and what makes it again."""
    sides = parse_patsy(formula)
    y = response(sides, frame, context)
    spec, X = learn(sides.right, frame, context)
    return y, pd.DataFrame(X, columns=spec.names, index=frame.index), spec


def _random(re_formula, frame, group_name: str, vc_formula, context: dict):
    """Design of the random effects with its names; None for the default or for none."""
    if re_formula is None:
        return None, [group_name] if vc_formula is None else []
    if re_formula.strip().lstrip("~").strip() == "1":
        ones = pd.DataFrame({group_name: np.ones(len(frame))}, index=frame.index)
        return ones, [group_name]
    spec, Z = learn(parse_patsy(_one_sided(re_formula)).right, frame, context)
    names = [name.replace("Intercept", group_name) for name in spec.names]
    return pd.DataFrame(Z, columns=names, index=frame.index), names


def _one_sided(formula: str) -> str:
    return formula.strip().lstrip("~").strip()


def _components(
    vc_formula: Mapping[str, str], frame: pd.DataFrame, labels, context: dict
) -> list[Component]:
    levels, group = np.unique(labels, return_inverse=True)
    out, rows = [], None
    for name in sorted(vc_formula):
        formula = _one_sided(vc_formula[name])
        found = _indicator(name, formula, frame, group, len(levels))
        if found is None:
            rows = rows or rows_of(group, len(levels))
            found = _evaluated(name, formula, frame, rows, context)
        out.append(found)
    return out


def _indicator(
    name: str, formula: str, frame: pd.DataFrame, group: np.ndarray, n_groups: int
) -> Component | None:
    """``0 + C(a):x`` as codes and values; None for anything else."""
    pieces = [(sign, text.strip()) for sign, text in split(formula, "+-")]
    rest = [text for sign, text in pieces if text not in ("0", "1", "")]
    no_intercept = any(
        (sign != "-" and text == "0") or (sign == "-" and text == "1")
        for sign, text in pieces
    )
    if not no_intercept or len(rest) != 1:
        return None
    atoms = [ATOM.match(text) for text in rest[0].split(":")]
    if not all(atoms):
        return None
    factors, values, parts = [], None, []
    for atom in atoms:
        assert atom is not None
        column = atom.group(1) or atom.group(2)
        if column not in frame.columns:
            return None
        series = frame[column]
        if atom.group(1) or is_factor(series):
            name_of = f"C({column})" if atom.group(1) else column
            codes, levels = read_levels(column, series)
            factors.append((name_of, codes, levels))
            parts.append(len(factors) - 1)
        else:
            x = series.to_numpy(float)
            values = x if values is None else values * x
            parts.append(column)
    names = tuple(p if isinstance(p, str) else factors[p][::2] for p in parts)
    total, cells = math.prod(len(levels) for _, _, levels in factors), None
    if total * n_groups > RADIX:
        every, sizes = [c for _, c, _ in factors], [len(v) for _, _, v in factors]
        category, cells = combine(every, sizes)
        total = len(cells)
    else:
        category = np.zeros(len(frame), np.int64)
        for _, codes, levels in factors:
            category = category * len(levels) + codes
    label = CellNames(names, cells)
    return by_levels(name, group, n_groups, category, total, values, label)


def _evaluated(
    name: str,
    formula: str,
    frame: pd.DataFrame,
    rows: list[np.ndarray],
    context: Mapping[str, Any],
) -> Component:
    mats, colnames = [], []
    terms = parse_patsy(formula).right
    for here in rows:
        spec, matrix = learn(terms, frame.iloc[here], context)
        mats.append(matrix)
        colnames.append(spec.names)
    return from_spec(VCSpec([name], [colnames], [mats]), rows, len(frame))[0]


# lme4's formulas ----------------------------------------------------------------------


def translated(formula: str, frame, groups, re_formula, vc_formula):
    """A formula with bars as (formula, groups, re_formula, vc_formula).

    The factor of a term with correlated columns is ``groups``; without one, it is the
    coarsest factor that the others are nested in, or all rows are one group; every
    other term is a component for each of its columns.
    """
    if re_formula is not None or vc_formula is not None:
        raise FormulaError(
            "random effects are either in the formula, as (x | g), or in re_formula "
            "and vc_formula"
        )
    read = parse(formula)
    fixed = f"{read.response} ~ {read.fixed}"
    if read.offsets:
        raise NotApplicableError("MixedLM takes no offset; jg.lmm does")
    joint = [p for p in read.random if _correlated(p)]
    factors = list(dict.fromkeys(p.grouping.parts for p in read.random))
    codes = {parts: _codes(parts, frame) for parts in factors}
    top: Any = joint[0].grouping.parts if joint else _coarsest(codes)
    if groups is not None and isinstance(groups, str):
        top = (groups,)
        codes.setdefault(top, _codes(top, frame))
    if len({p.grouping.parts for p in joint}) > 1 or (
        joint and top != joint[0].grouping.parts
    ):
        raise NotApplicableError(
            "MixedLM has one factor with correlated random effects, its groups; for "
            f"several as in {formula!r} use jg.lmm"
        )
    if joint and any(not _inside(codes[p], codes[top]) for p in factors):
        raise NotApplicableError(
            f"factors that cross {':'.join(top)} beside its correlated random effects "
            "make no independent groups; use jg.lmm"
        )
    re, vc = None, {}
    for part in read.random:
        columns = [t.name for t in part.terms]
        if part in joint or (part.grouping.parts == top and columns == ["(Intercept)"]):
            has = "(Intercept)" in columns
            shown = [c for c in columns if c != "(Intercept)"]
            re = " + ".join(["1" if has else "0", *shown])
            continue
        indicator = ":".join(f"C({c})" for c in part.grouping.parts)
        own = part.grouping.name
        for column in columns:
            plain = column == "(Intercept)"
            name = own if plain else f"{own} {column}"
            vc[name] = f"0 + {indicator}" + ("" if plain else f":{column}")
    chosen = groups
    if chosen is None:
        chosen = top[0] if top and len(top) == 1 else codes.get(top)
    if chosen is None:
        chosen = np.ones(len(frame))
    return fixed, chosen, re, vc or None


def _correlated(part: RandomPart) -> bool:
    return bool(named(part.covariance, len(part.terms)).pairs)


def _codes(parts: tuple[str, ...], frame: pd.DataFrame) -> np.ndarray:
    for part in parts:
        if part not in frame.columns:
            raise DataError(f"no column {part!r} in the data{nearest(part, frame)}")
    return frame.groupby(list(parts), observed=True, sort=True).ngroup().to_numpy()


def _inside(fine: np.ndarray, coarse: np.ndarray) -> bool:
    """Whether each level of one lies in one level of the other."""
    pairs = len(np.unique(fine.astype(np.int64) * (coarse.max() + 1) + coarse))
    return pairs == len(np.unique(fine))


def _coarsest(codes: dict[tuple, np.ndarray]) -> tuple | None:
    """The factor that all others are nested in, or None."""
    for name, coarse in sorted(codes.items(), key=lambda kv: kv[1].max()):
        if all(_inside(fine, coarse) for fine in codes.values()):
            return name
    return None
