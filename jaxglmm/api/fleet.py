"""``fit_many`` of data sets that live in a table that is read in batches.

Data sets go to parts by a hash of what names them, a part is fitted wherever an engine
has it, and its answer is a small table, one row a data set. Frames of Dask, Ray and
Spark are cut by these engines, and their rows stay with them; other sources are cut
into files here and handed to an executor. A few rows of the whole, the anchor, go with
every part: with them a part's design has the columns of all, whatever is in it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import ConvergenceWarning, DataError, FormulaError, ModelError
from jaxglmm._pandas import pd
from jaxglmm.formula import notices
from jaxglmm.formula.against_table import variables_in
from jaxglmm.many.collection import ModelSource
from jaxglmm.many.columns import KeptColumns
from jaxglmm.postestimation.collection import tables as fits_tables
from jaxglmm.results.fits import Fits
from jaxglmm.runtime import cache
from jaxglmm.streaming import fleet_frames, fleet_survey
from jaxglmm.streaming.sources import source_of

SET = "jaxglmm_data_set"  # the column of a part that says which data set a row is of
PROBED = 400  # rows on which the design is made twice
Make = Callable[[pd.DataFrame], ModelSource]


@dataclass(frozen=True)
class FleetSpec:
    """All that a worker needs beside its rows; pickled.

    fit: ``fit_many``; by: names of the columns that say whose a row is; options: of
    ``fit``; anchor: rows of the whole, without ``by``; categories: of columns that have
    an order; columns: of the table of estimates; cache: the folder of compiled
    programs; pid: of the process that made this.
    """

    fit: Callable[..., Fits]
    formula: str
    by: tuple[str, ...]
    options: dict[str, Any]
    anchor: pd.DataFrame
    categories: dict[str, list]
    columns: KeptColumns
    cache: str | None
    pid: int

    @property
    def facts(self) -> str:
        """What an answer depends on beside the rows."""
        given = self.formula, self.by, sorted(self.options.items()), self.columns
        return repr(given)

    def __call__(self, rows: pd.DataFrame) -> pd.DataFrame:
        """One row a data set: ``by``, then the table's columns."""
        keys = rows.groupby(list(self.by), sort=True, dropna=True, observed=True)
        code = keys.ngroup().to_numpy()
        _, first = np.unique(code, return_index=True)
        first = first[code[first] >= 0]
        labels = rows[list(self.by)].iloc[first].reset_index(drop=True)
        if not len(labels):
            return self._answer(labels, np.empty((0, self.columns.width)))
        whole = pd.concat(
            [joined(rows, self.anchor.columns), self.anchor], ignore_index=True
        )
        for name, levels in self.categories.items():
            whole[name] = pd.Categorical(whole[name], levels)
        whole[SET] = np.concatenate([code, np.full(len(self.anchor), len(labels))])
        whole = whole[whole[SET] >= 0]
        self._shares_programs()
        with notices.silent():  # statuses go home, and are told there
            fits = self.fit(self.formula, whole, by=SET, progress=False, **self.options)
        return self._answer(labels, self._table(fits)[: len(labels)])

    def _answer(self, labels: pd.DataFrame, table: np.ndarray) -> pd.DataFrame:
        found = pd.DataFrame(table, columns=list(column_names(self.columns)))
        return pd.concat([labels, found], axis=1)

    def _table(self, fits: Fits) -> np.ndarray:
        if fits.coefficient_names != self.columns.coefficients:
            raise DataError(
                "the columns of a part are "
                f"{', '.join(fits.coefficient_names)}, those of all rows "
                f"{', '.join(self.columns.coefficients)}: in these data sets a column "
                "depends on the others, or a type differs"
            )
        found = {name: getattr(fits, name, None) for name, _ in self.columns.blocks()}
        given = {name: x for name, x in found.items() if x is not None}
        return self.columns.table(len(fits), **given)

    def _shares_programs(self) -> None:
        """In another process: what it compiles is kept for the others."""
        if os.getpid() != self.pid and not cache.switched_off() and not _sharing:
            _sharing.append(cache.enable_compilation_cache(self.cache))


_sharing: list[Any] = []  # of this process, once


def joined(rows: pd.DataFrame, names: Any) -> pd.DataFrame:
    """The columns of the model."""
    return rows[list(names)].reset_index(drop=True)


def column_names(columns: KeptColumns) -> Iterator[str]:
    """Names of the columns of a table: ``coefficients.Days``, ``sigma``."""
    own = {"sd": columns.sd, "theta": range(columns.theta)}
    for block, width in columns.blocks():
        if block in ("coefficients", "se", "df", "p_values"):
            yield from (f"{block}.{name}" for name in columns.coefficients)
        elif block in own:
            yield from (f"{block}.{name}" for name in own[block])
        elif block.startswith("dispersion"):
            yield from (f"{block}.{name}" for name in columns.dispersion[:width])
        else:
            yield block


def fit_fleet(
    fit: Callable[..., Fits],
    make: Make,
    columns_of: Callable[[ModelSource], KeptColumns],
    given: dict[str, Any],
    options: dict[str, Any],
) -> Fits:
    """The fits of all data sets of a source.

    Args:
        fit: ``fit_many``.
        make: what it makes of a table in memory with the column ``SET``.
        columns_of: names of what is kept of a data set.
        given: formula, data, by, file, executor and progress, as for ``fit_many``.
        options: its other arguments.

    Raises:
        DataError, FormulaError, ModelError: the table, or the formula, cannot be used.
    """
    started = time.perf_counter()
    formula, data = given["formula"], given["data"]
    by = _arguments.names("by", given["by"], meaning="a column's name")
    for name in ("weights", "offset", "trials"):
        if options[name] is not None and not isinstance(options[name], str):
            raise ModelError(
                f"{name}= is the name of a column where the table is read in batches"
            )
    source = source_of(data)
    words = tuple(options[name] for name in ("weights", "offset", "trials"))
    used = variables_in(formula, source.names, words) | {
        name for name in words if name is not None
    }
    for right in given["parts"].values():
        used |= variables_in(f"{_left(formula)} ~ {right}", source.names, ())
    for name in by:
        if name not in source.names:
            raise DataError(f"by={name!r}: no column of that name")
    wanted = [n for n in source.names if n in used and n not in by]
    anchor, first, categories = fleet_survey.survey(source, wanted, list(by), formula)
    kept, facts = _probed(make, columns_of, anchor, first, categories)
    where = cache.enabled()
    spec = FleetSpec(
        fit,
        formula,
        tuple(by),
        options,
        anchor,
        categories,
        kept,
        None if where is None else str(where),
        os.getpid(),
    )
    answers = fleet_frames.run(
        spec,
        data,
        source,
        [*by, *wanted],
        given["executor"],
        given["file"],
        given["progress"],
    )
    return _assembled(spec, answers, facts, started)


def _left(formula: str) -> str:
    return formula.partition("~")[0] or "0"


def _probed(
    make: Make,
    columns_of: Callable[[ModelSource], KeptColumns],
    anchor: pd.DataFrame,
    first: pd.DataFrame,
    categories: dict[str, list],
) -> tuple[KeptColumns, dict[str, Any]]:
    """Names of what is kept; refuses formulas whose rows depend on other rows."""
    n = min(len(first), PROBED)
    made = []
    for rows in (first.iloc[:n], first.iloc[: n // 2]):
        table = pd.concat([anchor, rows], ignore_index=True)
        for name, levels in categories.items():
            table[name] = pd.Categorical(table[name], levels)
        table[SET] = np.arange(len(table)) >= len(anchor)
        with notices.silent():
            made.append(make(table))
    one, two = (source.design for source in made)
    k = min(len(one.X), len(two.X), len(anchor))
    same = one.x_names == two.x_names and np.allclose(
        one.X[:k], two.X[:k], rtol=1e-9, atol=1e-12
    )
    same = same and all(
        np.allclose(a.values[:k], b.values[:k], rtol=1e-9, atol=1e-12)
        for a, b in zip(one.terms, two.terms, strict=True)
    )
    if not same:
        raise FormulaError(
            "what the formula makes of a row depends on other rows (scale(), poly(), "
            "splines, means), and the table is read in parts: put these columns into "
            "the table, or fit it from memory"
        )
    source = made[0]
    family = source.family
    facts = {"family": "gaussian" if family is None else family.name}
    levels = source.design.response_levels
    kept = columns_of(source)
    if family is not None and levels is not None and kept.errors:
        facts |= {"levels": [str(x) for x in levels], "thresholds": family.thresholds}
    return kept, facts


def _assembled(
    spec: FleetSpec, answers: list[pd.DataFrame], facts: dict[str, Any], started: float
) -> Fits:
    """One ``Fits`` of all parts, in the order of the labels."""
    answers = [part for part in answers if len(part)]
    if not answers:
        raise DataError("there are no rows, or by= is missing everywhere")
    whole = pd.concat(answers, ignore_index=True)
    whole = whole.sort_values(list(spec.by), ignore_index=True)
    if whole.duplicated(list(spec.by)).any():
        raise DataError("a data set came back twice: by= has values of several types")
    table = whole[list(column_names(spec.columns))].to_numpy(float)
    if len(spec.by) == 1:
        labels = whole[spec.by[0]].to_numpy()
    else:
        labels = np.empty(len(whole), object)
        labels[:] = list(whole[list(spec.by)].itertuples(index=False, name=None))
    title = f"{len(table):,} models fit part by part"
    facts = facts | {
        "title": title,
        "formula": spec.formula,
        "seconds": time.perf_counter() - started,
    }
    fits = Fits.from_table(table, spec.columns, labels, facts=facts)
    if not fits.converged.all():
        text = "; ".join(fits_tables.counts(fits))
        notices.warn(f"{text}. See .status", ConvergenceWarning)
    return fits
