"""Rows of a residual structure: those of the data, some of them, and new ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from jaxglmm._errors import DataError, ModelError, ScaleWarning
from jaxglmm.formula.column import Column
from jaxglmm.formula.design import DISP, MARK, Design, ResidualTerm
from jaxglmm.formula.groups import combine
from jaxglmm.formula.levels import by_text_alone, match, text_of
from jaxglmm.formula.notices import listed, warn
from jaxglmm.formula.residual import BY_VISIT, PLACES, Residual, read_residual
from jaxglmm.formula.tables import as_table
from jaxglmm.formula.text import shown


def learn(
    residual: Residual, columns: Mapping[str, Column], n: int
) -> ResidualTerm | None:
    """The rows of the data; None where all are alike and independent.

    Raises:
        ModelError: a visit twice in a subject, one subject where there have to be
            several. DataError: times or a variable that are no numbers.
    """
    if not residual.text:
        return None
    codes, levels = _levels(residual.subject, columns, n)
    group_codes, group_levels = _levels(residual.group, columns, n)
    if not residual.parted:
        _refuse_split(residual, codes, levels, group_codes)
    position, visits, times = _places(residual, columns, codes, n)
    if residual.structure:
        _refuse_repeats(residual, codes, levels, position, visits)
        _refuse_few(residual, levels, visits)
    scales, names = _scales(residual, columns, n)
    return ResidualTerm(
        text=residual.text,
        structure=residual.structure,
        time=" + ".join(residual.times),
        subject=":".join(residual.subject),
        group=":".join(residual.group),
        codes=codes,
        levels=levels,
        position=position,
        visits=visits,
        times=times,
        group_codes=group_codes,
        group_levels=group_levels,
        scales=scales,
        scale_names=names,
        nugget=residual.nugget,
    )


def of_dispersion(part: Design) -> ResidualTerm:
    """Independent rows whose log standard deviation is the part's linear predictor."""
    n = part.n
    nowhere = np.zeros(n, int)
    right = str(part.formula).partition("~")[2].strip()
    return ResidualTerm(
        text=f"~ {right}",
        structure="",
        time="",
        subject="",
        group="",
        codes=nowhere,
        levels=np.array([""], object),
        position=nowhere,
        visits=np.array([""], object),
        times=np.zeros((n, 1)),
        group_codes=nowhere,
        group_levels=np.array([""], object),
        scales=part.X,
        scale_names=tuple(f"{DISP}{MARK}{name}" for name in part.x_names),
        part=part,
    )


def of_rows(term: ResidualTerm, rows: np.ndarray) -> ResidualTerm:
    """The term of some of the rows (k,), a data set of several.

    Raises:
        ModelError: a visit stands twice in a subject, or a subject is in two groups.
    """
    names = ("codes", "position", "times", "group_codes", "scales")
    names += () if term.known is None else ("known",)
    out = replace(term, **{name: getattr(term, name)[rows] for name in names})
    if not term.text or term.known is not None or term.part is not None:
        return out
    residual = read_residual(term.text)
    if not residual.times and term.structure:
        position, _, times = _in_order(out.codes)
        return replace(out, position=position, times=times)
    _refuse_split(residual, out.codes, term.levels, out.group_codes)
    if term.structure:
        _refuse_repeats(residual, out.codes, term.levels, out.position, term.visits)
    return out


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
    if not residual.structure:
        return np.zeros(n, int), np.array([""], object), np.zeros((n, 1))
    if not residual.times:
        return _in_order(codes)
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


def _in_order(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions by the order of each subject's rows, their labels, and times."""
    order, sizes = np.argsort(codes, kind="stable"), np.bincount(codes)
    position = np.empty(len(codes), int)
    before = np.repeat(np.cumsum(sizes) - sizes, sizes)
    position[order] = np.arange(len(codes)) - before
    return position, np.arange(1, sizes.max() + 1), position[:, None].astype(float)


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
            f"residual={shown(residual.text)}: {column.name!r} must be numbers, not "
            f"{'labels' if column.kind == 'label' else 'dates'}. Make numbers of it, "
            "as by pandas.to_numeric or (t - t.min()).dt.days; for labels in order "
            "there are ar1, toep and us"
        )
    values = np.asarray(column.values, float)
    if not np.isfinite(values).all():
        raise DataError(
            f"residual={shown(residual.text)}: {column.name!r} has values that are not "
            "finite; remove or correct them"
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
    if how and residual.structure != "us" and by_text_alone(texts):
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


def _refuse_repeats(residual: Residual, codes, levels, position, visits) -> None:
    """Two rows of a subject at one visit: their correlation would be one."""
    if residual.nugget or residual.parted or not residual.times:
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


def new_places(
    term: ResidualTerm, newdata: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes of the groups and positions of the visits, (n,), and scales (n, s).

    Raises:
        DataError: a column is missing, or a level of it was not in the fit.
    """
    table = as_table(newdata)
    if not term.text or term.known is not None:
        zeros = np.zeros(table.n, int)
        return zeros, zeros, np.zeros((table.n, 0))
    residual = read_residual(term.text).resolved(table.names)
    group = np.zeros(table.n, int)
    if residual.group:
        labels = _joined(residual.group, table)
        group = _known(labels, term.group_levels, term.group)
    position = np.zeros(table.n, int)
    if term.structure in BY_VISIT:
        labels = table.column(residual.times[0]).labels()
        position = _known(labels, term.visits, term.time)
    return group, position, _new_scales(residual, term, table)


def new_rows(term: ResidualTerm, newdata: Any) -> ResidualTerm:
    """The term of new rows; subjects that the fit had not have the code -1.

    Without a column of the time new rows come after those of their subject.

    Raises:
        DataError: a column is missing, or a visit lies outside what is known.
    """
    table = as_table(newdata)
    residual = read_residual(term.text).resolved(table.names)
    group, position, scales = new_places(term, newdata)
    codes = np.zeros(table.n, int)
    if residual.subject:
        codes = match(term.levels, _joined(residual.subject, table))
    how = PLACES.get(term.structure, "")
    times = np.zeros((table.n, term.times.shape[1]))
    if not residual.times:
        last = np.zeros(len(term.levels))
        np.maximum.at(last, term.codes, term.times[:, 0])
        order = _in_order(np.where(codes < 0, len(last), codes))[0]
        times[:, 0] = np.where(codes < 0, 0.0, last[codes]) + 1 + order
    elif how == "number":
        own = [_numbers(residual, table.column(name)) for name in residual.times]
        times = np.stack(own, axis=1)
    elif how == "whole" and term.visits.dtype.kind in "iufb":
        times[:, 0] = _numbers(residual, table.column(residual.times[0]))
        apart = times - term.times.min()
        if not (apart == np.rint(apart)).all():
            first = times[(apart != np.rint(apart)).any(axis=1)][0, 0]
            raise DataError(
                f"new data: {term.time!r} is {first:g}, between the whole steps of "
                f"{term.structure}; a fit with car1 knows correlations at any time"
            )
    elif how:
        labels = table.column(residual.times[0]).labels()
        position = _known(labels, term.visits, term.time)
        times[:, 0] = position
    return replace(
        term,
        codes=codes,
        position=position,
        times=times,
        group_codes=group,
        scales=scales,
    )


def _joined(names: tuple[str, ...], table: Any) -> np.ndarray:
    columns = [table.column(name).labels() for name in names]
    if len(columns) == 1:
        return columns[0]
    texts = [":".join(map(text_of, row)) for row in zip(*columns, strict=True)]
    return np.array(texts, object)


def _known(labels: np.ndarray, levels: np.ndarray, name: str) -> np.ndarray:
    found = match(np.asarray(levels), np.asarray(labels))
    if (found < 0).any():
        strange = listed(list(dict.fromkeys(np.asarray(labels)[found < 0].tolist())))
        raise DataError(
            f"new data: {name!r} has {strange}, of which the fit knows no residual "
            f"variance; it has those of {listed(list(levels))}"
        )
    return found


def _new_scales(residual: Residual, term: ResidualTerm, table: Any) -> np.ndarray:
    columns: list[np.ndarray] = []
    for kind, name in residual.variances:
        column = table.column(name)
        if kind == "varident":
            head = f"varident({name}): "
            known = [x.removeprefix(head) for x in term.scale_names if head in x]
            texts = np.array([text_of(x) for x in column.labels()], object)
            columns += [(texts == level).astype(float) for level in known]
        else:
            x = np.asarray(column.values, float)
            columns.append(np.log(np.abs(x)) if kind == "varpower" else x)
    return np.stack(columns, axis=1) if columns else np.zeros((table.n, 0))
