"""The residual covariance as text, and its rows: ``us(visit | arm / subject)``.

One correlation within subjects and what standard deviations depend on, by ``+``:

    ar1(time | g)               correlated within the levels of g
    us(visit | arm / subject)   within subjects, another covariance in each arm
    sp_exp(x + y)               over all rows, by the distance of coordinates
    varident(f)                 a standard deviation a level of f
    varpower(x), varexp(x)      proportional to |x|^d, to exp(d x)

Where an order is asked for it is that of a categorical's levels, of numbers, or of the
rows of a subject as they stand (``ar1(1 | g)``). nlme's spelling, ``corAR1(form = ~ t |
g)``, is read as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from jaxglmm._errors import DataError, FormulaError, ModelError, ScaleWarning
from jaxglmm.formula.column import Column
from jaxglmm.formula.design import ResidualTerm
from jaxglmm.formula.groups import combine
from jaxglmm.formula.levels import text_of
from jaxglmm.formula.notices import listed, nearest, warn
from jaxglmm.formula.text import call, find_name, shown, split, translate, unquoted

# name -> how rows of a subject are placed: the order of visits, whole numbers that may
# skip, any numbers, or not at all; ``model.residuals`` has what the names mean
PLACES = {
    "us": "rank",
    "toep": "rank",
    "toeph": "rank",
    "ad": "rank",
    "adh": "rank",
    "ar1": "whole",
    "ar1h": "whole",
    "arma11": "whole",
    "cs": "",
    "csh": "",
    "car1": "number",
    "sp_exp": "number",
    "sp_gau": "number",
}
BY_VISIT = frozenset({"us", "toeph", "adh", "ar1h", "csh"})
ALIASES = {
    "unstructured": "us",
    "un": "us",
    "ar1het": "ar1h",
    "hetar1": "ar1h",
    "arh1": "ar1h",
    "ante1": "adh",
    "corar1": "ar1",
    "corcompsymm": "cs",
    "corcar1": "car1",
    "corexp": "sp_exp",
    "corgaus": "sp_gau",
    "corarma": "arma11",
}
VARIANCES = ("varident", "varpower", "varexp")
_FORM = re.compile(r"^\s*form\s*=\s*~")
_NATURAL = re.compile(r"(\d+)")


@dataclass(frozen=True)
class Residual:
    """A residual covariance before the data.

    times: columns of the visit or the coordinates, none: order of the rows
    subject, group: columns whose combinations are the levels
    variances: (kind, column)
    """

    text: str
    structure: str = ""
    times: tuple[str, ...] = ()
    subject: tuple[str, ...] = ()
    group: tuple[str, ...] = ()
    variances: tuple[tuple[str, str], ...] = ()
    nugget: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column of the table that is read."""
        used = (*self.times, *self.subject, *self.group)
        return (*used, *(name for _, name in self.variances))

    def resolved(self, names: Iterable[str]) -> Residual:
        """With the columns that the names mean; one that is none is refused."""
        known = tuple(names)

        def found(name: str) -> str:
            there = find_name(name, known)
            if there is None:
                raise FormulaError(
                    f"residual {self.text!r}: no column {name!r} in the data"
                    f"{nearest(name, known)}"
                )
            return there

        return replace(
            self,
            times=tuple(map(found, self.times)),
            subject=tuple(map(found, self.subject)),
            group=tuple(map(found, self.group)),
            variances=tuple((kind, found(name)) for kind, name in self.variances),
        )

    def learn(self, columns: Mapping[str, Column], n: int) -> ResidualTerm | None:
        """The rows of the data; None where all are alike and independent.

        Raises:
            ModelError: a visit twice in a subject, one subject where there have to be
                several. DataError: times or a variable that are no numbers.
        """
        if not self.text:
            return None
        codes, levels = _levels(self.subject, columns, n)
        group_codes, group_levels = _levels(self.group, columns, n)
        _refuse_split(self, codes, levels, group_codes)
        position, visits, times = _places(self, columns, codes, n)
        if self.structure:
            _refuse_repeats(self, codes, levels, position, visits, times)
            _refuse_few(self, levels, visits)
        scales, names = _scales(self, columns, n)
        return ResidualTerm(
            text=self.text,
            structure=self.structure,
            time=" + ".join(self.times),
            subject=":".join(self.subject),
            group=":".join(self.group),
            codes=codes,
            levels=levels,
            position=position,
            visits=visits,
            times=times,
            group_codes=group_codes,
            group_levels=group_levels,
            scales=scales,
            scale_names=names,
            nugget=self.nugget,
        )


def is_residual(name: str) -> bool:
    """Whether ``name(...)`` with a bar is a residual covariance of ``jg.mmrm``."""
    return name.lower() in PLACES or name.lower() in ALIASES


def taken_apart(formula: str) -> tuple[str, str | None]:
    """A formula of ``jg.mmrm`` as one without its residual covariance, and that.

    Raises:
        FormulaError: there are several.
    """
    if not isinstance(formula, str):
        raise FormulaError(f"the formula must be text, not {type(formula).__name__}")
    plain = translate(formula)
    sides = [side for _, side in split(plain, "~")]
    if len(sides) != 2:
        return formula, None  # the reader of formulas says what is wrong
    kept, found = [], []
    for sign, piece in split(sides[1], "+-"):
        head, argument = call(piece.strip())
        bar = any(mark == "|" for mark, _ in split(argument, "|"))
        if sign != "-" and bar and is_residual(head):
            found.append(piece.strip())
        else:
            kept.append(f"{sign or ' '} {piece.strip()}")
    if len(found) > 1:
        raise FormulaError(
            f"{shown(formula)} has {len(found)} residual covariances, "
            f"{' and '.join(found)}; there can be one"
        )
    if not found:
        return formula, None
    right = " ".join(kept).strip().removeprefix("+ ").strip() or "1"
    return f"{sides[0].strip()} ~ {right}", found[0]


def given_residual(text: str | None, names: Iterable[str]) -> Residual:
    """What was asked for, with the columns that its names mean; nothing where None."""
    return Residual("") if text is None else read_residual(text).resolved(names)


def read_residual(text: str) -> Residual:
    """Read a residual covariance.

    Raises:
        FormulaError: what cannot be read, and what there is.
    """
    if not isinstance(text, str) or not text.strip():
        raise FormulaError(
            f"residual={text!r} must be text such as 'ar1(time | subject)'; there are "
            f"{', '.join(PLACES)}, and {', '.join(VARIANCES)}"
        )
    out = Residual(" ".join(text.split()))
    for _, raw in split(text, "+"):
        piece = raw.strip()
        head, argument = call(piece)
        name = ALIASES.get(head.lower(), head.lower())
        parts = [part.strip() for _, part in split(argument, ",")] if argument else []
        if name in VARIANCES and len(parts) == 1:
            column = _FORM.sub("", parts[0]).strip()
            column = column.split("|")[-1].strip() if name == "varident" else column
            out = replace(out, variances=(*out.variances, (name, _name(column, text))))
            continue
        if name not in PLACES or not parts:
            raise FormulaError(
                f"{shown(piece)} in residual={shown(text)} is not a residual "
                f"covariance; there are {', '.join(PLACES)}, as in 'ar1(time | "
                f"subject)', and {', '.join(VARIANCES)}, as in 'varident(f)'"
            )
        if out.structure:
            raise FormulaError(
                f"residual={shown(text)} has two correlations, {out.structure} and "
                f"{name}; there can be one, and any number of {', '.join(VARIANCES)}"
            )
        out = _correlation(out, name, parts, text)
    return out


def _correlation(out: Residual, name: str, parts: list[str], text: str) -> Residual:
    sides = [s.strip() for _, s in split(_FORM.sub("", parts[0]), "|")]
    if len(sides) > 2 or not all(sides):
        raise FormulaError(
            f"residual={shown(text)}: write {name}(time | subject), with one bar"
        )
    nugget = False
    for option in parts[1:]:
        key, _, value = (x.strip() for x in option.partition("="))
        if key == "nugget" and PLACES[name] == "number":
            nugget = value.lower() in ("true", "t", "1")
        elif key not in ("p", "q") or value != "1":
            raise FormulaError(
                f"residual={shown(text)}: {shown(option)} is not understood; "
                "car1, sp_exp and sp_gau take nugget=True"
            )
    times = tuple(_name(t, text) for _, t in split(sides[0], "+") if t.strip() != "1")
    within = [s.strip() for _, s in split(sides[1], "/")] if len(sides) == 2 else []
    if len(within) > 2:
        raise FormulaError(
            f"residual={shown(text)}: a group and a subject, as in {name}(time | arm / "
            f"subject), not {len(within)} factors"
        )
    levels = [tuple(_name(x, text) for _, x in split(w, ":")) for w in within]
    if len(times) != 1 and PLACES[name] in ("rank",):
        raise FormulaError(
            f"residual={shown(text)}: {name} needs one column that says the visit, as "
            f"in {name}(visit | subject)"
        )
    if (len(times) > 1 and PLACES[name] != "number") or (
        not times and (PLACES[name] == "number" or name in BY_VISIT)
    ):
        raise FormulaError(
            f"residual={shown(text)}: {name} takes one column for the time"
            + (" or several coordinates" if PLACES[name] == "number" else "")
        )
    if not levels and PLACES[name] != "number":
        raise FormulaError(
            f"residual={shown(text)}: within what are residuals correlated? Write "
            f"{name}({sides[0]} | subject)"
        )
    return replace(
        out,
        structure=name,
        times=times,
        subject=levels[-1] if levels else (),
        group=levels[0] if len(levels) == 2 else (),
        nugget=nugget,
    )


def _name(text: str, whole: str) -> str:
    text = text.strip()
    head, argument = call(text)
    if head in ("factor", "C"):
        text = argument.strip()
    name = unquoted(text) if text.startswith("`") else text
    if not re.fullmatch(r"[^()~|/*^,]+", name):
        raise FormulaError(
            f"residual={shown(whole)}: {shown(text)} must be the name of a column; "
            "compute it as a column first"
        )
    return name


def _levels(
    names: tuple[str, ...], columns: Mapping[str, Column], n: int
) -> tuple[np.ndarray, np.ndarray]:
    """Codes (n,) and labels of combinations of columns; without any, one level."""
    if not names:
        return np.zeros(n, np.int32), np.array([""], object)
    coded = [columns[name].as_factor() for name in names]
    if len(coded) == 1:
        return coded[0]
    codes, cells = combine([c for c, _ in coded], [len(x) for _, x in coded])
    labels = [
        ":".join(text_of(x[i]) for (_, x), i in zip(coded, cell, strict=True))
        for cell in cells.tolist()
    ]
    return codes, np.array(labels, object)


def _places(
    residual: Residual, columns: Mapping[str, Column], codes: np.ndarray, n: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Position (n,) of each row, labels of the positions, times (n, d)."""
    how = PLACES.get(residual.structure, "")
    if not residual.times:
        order = np.argsort(codes, kind="stable")
        sizes = np.bincount(codes)
        position = np.empty(n, int)
        position[order] = np.arange(n) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return position, np.arange(1, sizes.max() + 1), position[:, None].astype(float)
    if how == "number":
        times = np.stack([_numbers(residual, columns[t]) for t in residual.times], 1)
        position, visits = _ranks(times)
        return position, visits, times
    column = columns[residual.times[0]]
    position, visits = column.as_factor()
    _warn_unseen(residual, column, visits, how)
    times = position
    if how == "whole" and column.kind == "number":
        times = _numbers(residual, column)
        apart = times - times.min()
        if not (apart == np.rint(apart)).all():
            raise DataError(
                f"residual={shown(residual.text)}: {residual.structure} counts whole "
                f"steps of {column.name!r}, whose values lie "
                f"{np.min(np.diff(np.unique(times))):g} apart. Use car1 or sp_exp for "
                "any times, or round them to steps"
            )
    return position.astype(int), visits, np.asarray(times, float)[:, None]


def _ranks(times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if times.shape[1] == 1:
        visits, position = np.unique(times[:, 0], return_inverse=True)
        return position.ravel(), visits
    order, position = np.unique(times, axis=0, return_inverse=True)
    labels = [", ".join(f"{x:g}" for x in row) for row in order]
    return position.ravel(), np.array(labels, object)


def _numbers(residual: Residual, column: Column) -> np.ndarray:
    if column.kind not in ("number", "truth"):
        raise DataError(
            f"residual={shown(residual.text)}: {column.name!r} must be numbers"
        )
    values = np.asarray(column.values, float)
    if not np.isfinite(values).all():
        raise DataError(
            f"residual={shown(residual.text)}: {column.name!r} has values that are not "
            "finite"
        )
    return values


def _warn_unseen(residual: Residual, column: Column, visits, how: str) -> None:
    """Visits that no row has, and text whose order is not that of its numbers."""
    if column.kind != "label":
        return
    unseen = [x for x in column.levels if x not in set(visits)]  # type: ignore
    if unseen:
        warn(
            f"no row has visit {listed(unseen)} of {column.name!r}: the residual "
            "covariance is that of the other visits"
            + (", counted as neighbours" if how == "whole" else ""),
            ScaleWarning,
        )
    texts = [text_of(x) for x in visits]
    natural = sorted(
        texts,
        key=lambda x: [
            (int(p), "") if p.isdigit() else (0, p) for p in _NATURAL.split(x)
        ],
    )
    if how and residual.structure != "us" and texts == sorted(texts) != natural:
        warn(
            f"the visits {listed(texts)} of {column.name!r} are in the order of texts; "
            f"{residual.structure} takes them as neighbours in time. Make the column a "
            "categorical with its levels in order",
            ScaleWarning,
        )


def _refuse_split(residual: Residual, codes, levels, group_codes) -> None:
    """A subject in two groups has no covariance."""
    first = np.zeros(len(levels), int)
    first[codes] = group_codes
    wrong = np.flatnonzero(first[codes] != group_codes)
    if len(wrong):
        raise ModelError(
            f"residual={shown(residual.text)}: subject "
            f"{text_of(levels[codes[wrong[0]]])!r} is in more than one level of "
            f"{':'.join(residual.group)!r}; each subject must be in one"
        )


def _refuse_repeats(residual: Residual, codes, levels, position, visits, times) -> None:
    """Two rows of a subject at one visit: their correlation would be one."""
    if residual.nugget or not residual.times:
        return
    cell = codes.astype(np.int64) * (int(position.max()) + 1) + position
    order = np.argsort(cell, kind="stable")
    again = np.flatnonzero(np.diff(cell[order]) == 0)
    if not len(again):
        return
    row = order[again[0]]
    where = f" of subject {text_of(levels[codes[row]])!r}" if residual.subject else ""
    raise ModelError(
        f"residual={shown(residual.text)}: {len(again) + 1} rows share a subject and a "
        f"visit, the first visit {text_of(visits[position[row]])!r}{where}: a visit "
        "can stand once in a subject. Take their mean, correct the labels, or name "
        f"what tells them apart, as in {residual.structure}("
        f"{' + '.join(residual.times)} | subject:site)"
    )


def _refuse_few(residual: Residual, levels, visits) -> None:
    if residual.subject and len(visits) < 2:
        raise ModelError(
            f"residual={shown(residual.text)}: every subject has one row, at visit "
            f"{text_of(visits[0])!r}; there is no correlation to estimate. Leave "
            "the residual structure out"
        )
    if len(levels) < 2 and residual.structure in BY_VISIT:
        raise ModelError(
            f"residual={shown(residual.text)}: there is one subject, "
            f"{text_of(levels[0])!r}, and {residual.structure} has a standard "
            "deviation of every visit. Use ar1 or another structure with few "
            "parameters, or check the subject's column"
        )


def _scales(
    residual: Residual, columns: Mapping[str, Column], n: int
) -> tuple[np.ndarray, tuple[str, ...]]:
    """(n, s) columns of the log standard deviation, and their names."""
    found: list[np.ndarray] = []
    names: list[str] = []
    for kind, name in residual.variances:
        column = columns[name]
        if kind == "varident":
            codes, levels = column.as_factor()
            if len(levels) < 2:
                raise ModelError(
                    f"varident({name}): {name!r} has one level; there is nothing to "
                    "tell apart"
                )
            for k, level in enumerate(levels[1:], 1):
                found.append((codes == k).astype(float))
                names.append(f"varident({name}): {text_of(level)}")
            continue
        x = _numbers(residual, column)
        if kind == "varpower":
            if not x.all():
                raise DataError(
                    f"varpower({name}): {name!r} is zero in {int((x == 0).sum())} "
                    "rows, whose variance would be zero. Move it from zero, or use "
                    f"varexp({name})"
                )
            x = np.log(np.abs(x))
        found.append(x)
        names.append(f"{kind}({name})")
    scales = np.stack(found, axis=1) if found else np.zeros((n, 0))
    return scales, tuple(names)
