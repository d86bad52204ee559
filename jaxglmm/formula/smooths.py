"""Formulas with smooths: ``y ~ f + s(x) + te(u, v) + (1 | g)``.

The smooths are taken out of the text, and put into the design that the rest makes: the
columns that are not penalised into X, the others as one random term a smooth. New data
go the same way. ``s(g, bs="re")`` is ``(1 | g)``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jaxglmm._errors import DataError, FormulaError, RankDeficientWarning
from jaxglmm.formula import build, jsonable
from jaxglmm.formula.column import Column, Columns
from jaxglmm.formula.design import Design, FixedTerm, KnownLevels, NewRows, RandomTerm
from jaxglmm.formula.levels import match, text_of
from jaxglmm.formula.notices import listed, warn
from jaxglmm.formula.smooth_terms import (
    WORDS,
    SmoothCurve,
    SmoothTerm,
    learned,
    read_smooth,
    resolved,
)
from jaxglmm.formula.tables import as_table
from jaxglmm.formula.text import call, shown, split, translate

NEW = 1e-8  # share of a column's length that is not in X already


def taken_apart(
    formula: Any, context: Mapping[str, Any] | None = None
) -> tuple[Any, tuple[SmoothTerm, ...]]:
    """The formula without its smooths, and these.

    A function called ``s`` or ``te`` in ``context`` is the caller's own.

    Raises:
        FormulaError: a smooth that cannot be read, or that is multiplied or subtracted.
    """
    words = [w for w in WORDS if not callable((context or {}).get(w))]
    if not isinstance(formula, str) or not any(f"{w}(" in formula for w in words):
        return formula, ()
    sides = [side for _, side in split(translate(formula), "~")]
    if len(sides) != 2:
        return formula, ()
    kept, found = [], []
    for sign, raw in split(sides[1], "+-"):
        piece = raw.strip()
        word, inside = call(piece)
        if word not in words:
            if any(_holds(piece, w) for w in words):
                raise FormulaError(
                    f"{shown(piece)}: a smooth can only be added. A curve for each "
                    "level of f is s(x, by=f)"
                )
            kept.append(f"{sign or '+'} {piece}" if piece else "")
            continue
        if sign == "-":
            raise FormulaError(f"{shown(piece)} cannot be subtracted; leave it out")
        if "re" in [x.strip("'\" ") for x in inside.replace("=", ",").split(",")]:
            kept.append(f"+ {_grouping(piece, inside)}")
        else:
            found.append(read_smooth(piece))
    labels = [(term.label, term.by) for term in found]
    if len(set(labels)) < len(labels):
        twice = next(x for x in labels if labels.count(x) > 1)
        raise FormulaError(f"{twice[0]} appears twice")
    right = " ".join(kept).strip().removeprefix("+ ").strip() or "1"
    return f"{sides[0].strip()} ~ {right}", tuple(found)


def _holds(piece: str, word: str) -> bool:
    at = piece.find(f"{word}(")
    while at >= 0:
        before = piece[at - 1] if at else " "
        if not (before.isalnum() or before in "._`"):
            return True
        at = piece.find(f"{word}(", at + 1)
    return False


def _grouping(piece: str, inside: str) -> str:
    """``s(g, bs="re")`` as ``(1 | g)``; ``s(g, x, bs="re")`` as ``(0 + x | g)``."""
    names = [x.strip() for _, x in split(inside, ",") if "=" not in x]
    if len(names) == 1:
        return f"(1 | {names[0]})"
    if len(names) == 2:
        return f"(0 + {names[1]} | {names[0]})"
    raise FormulaError(
        f"{shown(piece)}: bs='re' takes a grouping factor, and one covariate after it"
    )


def design_from_formula(formula: str, data: Any, **options: Any) -> Design:
    """``build.design_from_formula`` of a formula that may have smooths in it."""
    plain, terms = taken_apart(formula, options.get("context"))
    if not terms:
        return build.design_from_formula(
            plain if plain is not formula else formula, data, **options
        )
    table = as_table(data)
    terms = tuple(resolved(term, table.names) for term in terms)
    names = dict.fromkeys(name for term in terms for name in term.names)
    columns = {name: table.column(name) for name in names}
    also = {**(options.pop("also", None) or {}), **columns}
    design = build.design_from_formula(plain, table, also=also, **options)
    if design.rows is not None:
        columns = {name: c.take(design.rows) for name, c in columns.items()}
    found = [smooth for term in terms for smooth in _learn(term, columns)]
    return with_smooths(replace(design, formula=formula), found, columns)


def _numbers(label: str, column: Column) -> np.ndarray:
    if column.kind not in ("number", "truth"):
        raise DataError(
            f"{label}: {column.name!r} is not numeric; a smooth is of numbers. Of a "
            f"grouping factor write s({column.name}, bs='re')"
        )
    values = np.asarray(column.values, float)
    if np.isinf(values).any():
        raise DataError(f"{label}: {column.name!r} has infinite values")
    return values


def _learn(term: SmoothTerm, columns: Mapping[str, Column]) -> list[SmoothCurve]:
    x = np.stack([_numbers(term.label, columns[n]) for n in term.variables], axis=1)
    if term.by is None:
        return learned(term, x, None, None)
    by = columns[term.by]
    if by.kind == "number":
        return learned(term, x, _numbers(term.label, by), None)
    codes, levels = by.as_factor()
    return learned(term, x, codes, [text_of(v) for v in levels])


def _by(smooth: SmoothCurve, columns: Mapping[str, Column], unseen: bool = False):
    """(n,) what the basis is multiplied by; None for nothing."""
    if smooth.by is None:
        return None
    column = columns[smooth.by]
    if smooth.level is None:
        return _numbers(smooth.label, column)
    labels = np.array([text_of(v) for v in column.labels()], object)
    return (labels == smooth.level).astype(float)


def _made(
    smooths: Sequence[SmoothCurve], columns: Mapping[str, Column]
) -> list[tuple[np.ndarray, np.ndarray]]:
    out = []
    for smooth in smooths:
        x = [_numbers(smooth.label, columns[name]) for name in smooth.variables]
        out.append(smooth.columns(np.stack(x, axis=1), _by(smooth, columns)))
    return out


def _term(smooth: SmoothCurve, Z: np.ndarray) -> RandomTerm:
    names = tuple(f"{smooth.label}.{j + 1}" for j in range(Z.shape[1]))
    return RandomTerm(
        smooth.label,
        smooth.label,
        names,
        np.zeros(len(Z), np.int32),
        Z,
        np.array(["s"], object),
        smooth.covariance,
        known=KnownLevels(np.array(names, object), np.eye(len(names))),
    )


def with_smooths(
    design: Design, smooths: Sequence[SmoothCurve], columns: Mapping[str, Column]
) -> Design:
    """The design with the columns of smooths, and a recipe that makes them again."""
    X, names, fixed = design.X, list(design.x_names), list(design.fixed_terms)
    random, kept = list(design.terms), []
    whole = len(names) + len(design.dropped_columns)
    dropped = []
    for smooth, (F, Z) in zip(smooths, _made(smooths, columns), strict=True):
        use = _independent(X, F)
        kept.append(tuple(np.flatnonzero(use).tolist()))
        dropped += [n for n, u in zip(smooth.fixed_names, use, strict=True) if not u]
        at = tuple(range(len(names), len(names) + int(use.sum())))
        fixed.append(
            FixedTerm(
                smooth.label,
                frozenset(smooth.variables),
                at,
                full=tuple(range(whole, whole + len(at))),
            )
        )
        whole += len(at)
        names += [n for n, u in zip(smooth.fixed_names, use, strict=True) if u]
        X = np.concatenate([X, F[:, use]], axis=1)
        random.append(_term(smooth, Z))
    if dropped:
        warn(
            f"the smooths' straight parts {listed(dropped)} are in the other fixed "
            "effects already, and were left out of the smooths",
            RankDeficientWarning,
        )
    recipe = SmoothRecipe(design.recipe, tuple(smooths), tuple(kept))
    variables = dict(design.variables)
    variables |= {k: c for k, c in columns.items() if k not in variables}
    if isinstance(design.variables, Columns):
        own = {**design.variables.columns, **columns}
        variables = Columns(own)
    return replace(
        design,
        X=np.ascontiguousarray(X),
        x_names=tuple(names),
        terms=tuple(random),
        fixed_terms=tuple(fixed),
        recipe=recipe,
        variables=variables,
        null_space=None if design.null_space is None else design.null_space,
    )


def _independent(X: np.ndarray, F: np.ndarray) -> np.ndarray:
    """(m,) which columns are not in the space of X and of those before."""
    use = np.zeros(F.shape[1], bool)
    for j in range(F.shape[1]):
        if X.shape[1]:
            scale = np.linalg.norm(X, axis=0)
            fit = np.linalg.lstsq(X / scale, F[:, j], rcond=None)[0]
            rest = F[:, j] - (X / scale) @ fit
        else:
            rest = F[:, j]
        use[j] = np.linalg.norm(rest) > NEW * np.linalg.norm(F[:, j])
        if use[j]:
            X = np.concatenate([X, F[:, [j]]], axis=1)
    return use


@dataclass(frozen=True)
class SmoothRecipe:
    """The recipe of a design with smooths; part: of all that is no smooth.

    kept: of each smooth the fixed columns that are in X.
    """

    part: Any
    smooths: tuple[SmoothCurve, ...]
    kept: tuple[tuple[int, ...], ...]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "part":
            raise AttributeError(name)
        return getattr(self.part, name)

    def _columns(self, data: Any) -> dict[str, Column]:
        table = as_table(data)
        names = dict.fromkeys(
            name
            for smooth in self.smooths
            for name in (*smooth.variables, *([smooth.by] if smooth.by else []))
        )
        absent = [name for name in names if name not in table.names]
        if absent:
            raise DataError(
                f"new data lack the column{'s' * (len(absent) > 1)} {listed(absent)}, "
                f"of the smooth {self._of(absent[0])}"
            )
        columns = {name: table.column(name) for name in names}
        self._refuse_levels(columns)
        return columns

    def _of(self, name: str) -> str:
        return next(s.label for s in self.smooths if name in (*s.variables, s.by))

    def _refuse_levels(self, columns: Mapping[str, Column]) -> None:
        factors = {s.by for s in self.smooths if s.by and s.level is not None}
        for name in factors:
            known = np.array([s.level for s in self.smooths if s.by == name], object)
            given = np.array([text_of(v) for v in columns[name].labels()], object)
            strange = given[match(known, given) < 0]
            if len(strange):
                raise DataError(
                    f"new data: {name!r} has {listed(list(dict.fromkeys(strange)))}, "
                    f"of which the fit knows no curve; it has those of "
                    f"{listed(list(dict.fromkeys(known)))}"
                )

    def new_rows(
        self, data, *, new_levels: str = "zero", random: bool = True, offset=None
    ) -> NewRows:
        """As ``FormulaRecipe.new_rows``; smooths are there without ``random`` too.

        A smooth is part of the mean: its penalised columns are random terms of the
        rows, which ``random=False`` leaves out.
        """
        rows = self.part.new_rows(
            data, new_levels=new_levels, random=random, offset=offset
        )
        made = _made(self.smooths, self._columns(data))
        own = [F[:, list(k)] for (F, _), k in zip(made, self.kept, strict=True)]
        X = np.concatenate([rows.X, *own], axis=1)
        full = None if rows.full is None else np.concatenate([rows.full, *own], axis=1)
        terms = [_term(s, Z) for s, (_, Z) in zip(self.smooths, made, strict=True)]
        terms = (*rows.terms, *terms) if random else ()
        return replace(rows, X=X, full=full, terms=tuple(terms))

    def sum_coded(self) -> np.ndarray:
        """As ``FormulaRecipe.sum_coded``, with the columns of smooths."""
        X = self.part.sum_coded()
        columns = self.part.training.columns
        made = _made(self.smooths, {**columns, **self._trained})
        own = [F[:, list(k)] for (F, _), k in zip(made, self.kept, strict=True)]
        return np.concatenate([X, *own], axis=1)

    def using(self, functions: Mapping[str, Any], trusted: bool) -> SmoothRecipe:
        """The same recipe, whose formula may call these functions."""
        return replace(self, part=self.part.using(functions, trusted))

    def knowing(self, known: Mapping[str, KnownLevels]) -> SmoothRecipe:
        """The same where covariances between levels are known."""
        return replace(self, part=self.part.knowing(known))

    def to_dict(self) -> dict[str, Any]:
        """For JSON; see ``FormulaRecipe.to_dict``."""
        return {
            "kind": "smooths",
            "part": self.part.to_dict(),
            "kept": [list(k) for k in self.kept],
            "smooths": [
                {
                    "label": s.label,
                    "variables": list(s.variables),
                    "by": s.by,
                    "level": s.level,
                    "margins": [jsonable.pack(dict(m)) for m in s.margins],
                    "fixed": jsonable.pack(s.fixed),
                    "random": jsonable.pack(s.random),
                    "shares": jsonable.pack(s.shares),
                }
                for s in self.smooths
            ],
        }

    @classmethod
    def from_parts(cls, part: Any, saved: Mapping[str, Any]) -> SmoothRecipe:
        """The recipe that ``to_dict`` wrote, its part read already."""
        found = tuple(
            SmoothCurve(
                s["label"],
                tuple(s["variables"]),
                s["by"],
                s["level"],
                tuple(jsonable.unpack(m) for m in s["margins"]),
                np.asarray(jsonable.unpack(s["fixed"])),
                np.asarray(jsonable.unpack(s["random"])),
                np.asarray(jsonable.unpack(s["shares"])),
            )
            for s in saved["smooths"]
        )
        return cls(part, found, tuple(tuple(k) for k in saved["kept"]))


def smooths_of(design: Design) -> tuple[SmoothCurve, ...]:
    """The smooths of a design, of all its predictors, in the order of its terms."""
    return getattr(design.recipe, "smooths", ())


def rows_of_smooth(
    design: Design, smooth: SmoothCurve, data: Any
) -> tuple[np.ndarray, np.ndarray, Any]:
    """Columns of X and of Z of one smooth at new places, and the places as a frame."""
    import pandas as pd  # formulas are read without it

    recipe: Any = design.recipe  # that has smooths
    table = as_table(data)
    names = [*smooth.variables, *([smooth.by] if smooth.by else [])]
    absent = [name for name in names if name not in table.names]
    if absent:
        raise DataError(f"{smooth.label} needs the column {absent[0]!r}")
    columns = {name: table.column(name) for name in names}
    ((F, Z),) = _made([smooth], columns)
    kept = recipe.kept[recipe.smooths.index(smooth)]
    frame = pd.DataFrame({name: np.asarray(columns[name].labels()) for name in names})
    return F[:, list(kept)], Z, frame
