"""Simulated residuals: where each response lies among responses drawn from the fit.

A scaled residual is the rank of y_i among n draws from the fitted model, as a number
between 0 and 1 with ties (counts) broken at random: uniform whatever the family if the
model holds, which no other residual of a count or a yes-or-no is. Dunn and Smyth
(1996), J. Comput. Graph. Stat. 5, 236; Gelman and Hill (2006), chapter 8; Hartig's
DHARMa made them known for mixed models.

Draws with new random effects leave the residuals of one level correlated, so that
p-values of textbooks are wrong. Here the draws judge: given the parameters, data and
draws are exchangeable, so a statistic of the data is compared with the same statistic
of every draw, each scaled among the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import DataError, NotApplicableError
from jaxglmm.fitting.simulate import draws_new_effects
from jaxglmm.numerics import multiplicity
from jaxglmm.postestimation.checking import residual_patterns as _patterns
from jaxglmm.postestimation.checking.against_draws import Test as Test
from jaxglmm.postestimation.checking.against_draws import (
    distances,
    tabulated,
    uniform,
    upper,
)
from jaxglmm.postestimation.checking.against_draws import two_sided as two_sided
from jaxglmm.postestimation.checking.grouped import SummedGroups

if TYPE_CHECKING:
    import pandas as pd

    from jaxglmm.fitting.fitted_model import FittedModel

WHOLE = 2.0**20  # counts below this leave 32 bits to break ties by
QUANTILES = _patterns.QUANTILES
KEPT = 5_000_000  # simulated responses that are kept and judge; more: textbook p-values


@dataclass(frozen=True, repr=False)
class SimulatedResiduals:
    """Scaled residuals of a fit, and tests of them; made by ``Fit``.

    scaled: (nobs,) in (0, 1); predicted: (nobs,) mean that the model predicts, at
    random effects of zero or the modes; n: draws; re: which of these; spreads, zeros:
    (n + 1,) mean square about the mean of the draws and share of zeros, of the data
    first; outside: rows above or below all draws, none equal; beyond: (nobs,) which;
    extremes: (n + 1,) such rows of data and draws; draws: (n + 1, rows) scaled values
    of data and draws; both None where there are too many; used: rows that the fit used.
    """

    scaled: np.ndarray
    predicted: np.ndarray
    n: int
    re: str
    spreads: np.ndarray
    zeros: np.ndarray
    beyond: np.ndarray
    extremes: np.ndarray | None
    draws: np.ndarray | None
    used: np.ndarray
    variables: dict[str, np.ndarray] = field(default_factory=dict)
    discrete: bool = False

    def __len__(self) -> int:
        return len(self.scaled)

    def __repr__(self) -> str:
        return f"<Simulated residuals of {len(self)} rows, {self.n} draws ({self.re})>"

    @property
    def outside(self) -> int:
        """Rows that the fit used, above or below all draws."""
        return int(self.beyond.sum())

    @property
    def limit(self) -> float:
        """Distance of a uniform sample from the uniform distribution, 95 per cent."""
        if self.draws is None:
            return 1.3581 / float(np.sqrt(self.used.sum()))
        return float(np.quantile(distances(self.draws[1:]), 0.95))

    @cached_property
    def uniformity(self) -> Test:
        """Kolmogorov and Smirnov's distance from the uniform distribution."""
        if self.draws is None:
            return uniform(self.scaled[self.used])
        return upper(distances(self.draws))

    @cached_property
    def dispersion(self) -> Test:
        """Mean square about the mean of the draws: more or less than the draws have."""
        return two_sided(self.spreads)

    @cached_property
    def zero_share(self) -> Test:
        """Share of responses that are zero: more or less than the draws have."""
        return two_sided(self.zeros)

    @cached_property
    def outliers(self) -> Test:
        """Rows above or below all draws, as ``outside``; two in n + 1 are expected.

        Fewer of a discrete response, which may equal the lowest and the highest draw.
        """
        if self.extremes is not None:
            return two_sided(self.extremes.astype(float))
        from scipy import stats

        rows, share = int(self.used.sum()), 2 / (self.n + 1)
        # a count may equal draws at either end, and then is not outside: fewer than
        # expected are no finding
        side = "greater" if self.discrete else "two-sided"
        p = stats.binomtest(self.outside, rows, share, side).pvalue
        return Test(float(self.outside), rows * share, float(p), "asymptotic")

    def by(self, groups) -> pd.DataFrame:
        """Uniformity level by level.

        Args:
            groups: a variable of the model, a grouping factor, or labels (nobs,).

        Returns:
            Frame by level: n, mean and sd of the scaled residuals (0.5 and 0.29 are
            expected), Kolmogorov and Smirnov's statistic, p_value and p_adjusted
            (Holm).
        """
        import pandas as pd

        name, labels = self.labels(groups)
        codes, levels = pd.factorize(labels[self.used], sort=True)
        own = self.scaled[self.used]
        tests = [self._of(codes == k) for k in range(len(levels))]
        parts = [own[codes == k] for k in range(len(levels))]
        p = np.array([test.p_value for test in tests])
        return pd.DataFrame(
            {
                "n": [len(x) for x in parts],
                "mean": [x.mean() for x in parts],
                "sd": [x.std() for x in parts],
                "statistic": [test.statistic for test in tests],
                "p_value": p,
                "p_adjusted": multiplicity.adjusted(p, "holm"),
            },
            index=pd.Index(levels, name=name),
        )

    def _of(self, rows: np.ndarray) -> Test:
        if self.draws is None:
            return uniform(self.scaled[self.used][rows])
        return upper(distances(self.draws[:, rows]))

    def labels(self, groups) -> tuple[str, np.ndarray]:
        """Name and values (nobs,) of a variable of the model, or of labels given."""
        if isinstance(groups, str):
            if groups not in self.variables:
                raise NotApplicableError(
                    f"there is no variable {groups!r} in the model; there are "
                    f"{', '.join(self.variables) or 'none'}. Labels (nobs,) work too"
                )
            return groups, np.asarray(self.variables[groups])
        try:
            labels = np.asarray(groups)
        except ValueError as error:
            raise DataError(f"labels are no array, a row each ({error})") from error
        if labels.shape != (len(self),):
            raise DataError(
                f"labels have shape {labels.shape}; there are {len(self)} rows"
            )
        return getattr(groups, "name", None) or "group", labels

    def temporal(self, time: Any, within: Any = None) -> Test:
        """Durbin and Watson's statistic in order of time: 2 without pattern.

        Args:
            time: a variable of the model or numbers (nobs,); rows of one time, and one
                level of ``within``, count with their mean.
            within: a variable or labels: neighbours of one level alone are compared.

        Example:
            >>> import jaxglmm as jg
            >>> fit = jg.lmm("Reaction ~ Days + (1 | Subject)",
            ...              jg.datasets.load("sleepstudy"))
            >>> found = fit.simulated_residuals(seed=1)
            >>> found.temporal("Days", within="Subject").p_value < 0.05
            True
        """
        return _patterns.temporal(self, time, within)

    def spatial(self, x: Any, y: Any) -> Test:
        """Moran's I, pairs of places weighted by one over their distance.

        Args:
            x: a variable of the model or numbers (nobs,).
            y: the other coordinate; rows of one place count with their mean.
        """
        return _patterns.spatial(self, x, y)

    def quantiles(self, by: Any = None, at: Sequence[float] = QUANTILES):
        """Whether quantiles of the residuals stay level along a predictor.

        Args:
            by: a variable of the model or numbers (nobs,); default the predicted mean.
            at: quantiles between 0 and 1.

        Returns:
            Frame by quantile, and "all" of them: observed, expected, p_value, method.
        """
        return _patterns.quantiles(self, by, at)

    def categorical(self, groups: Any) -> pd.DataFrame:
        """Whether residuals are uniform in each level of a factor, and spread alike.

        Args:
            groups: a variable of the model, a grouping factor, or labels (nobs,).

        Returns:
            Frame of two tests, "uniformity" and "homogeneity": observed, expected,
            p_value, method. ``by(groups)`` has the levels one by one.
        """
        return _patterns.categorical(self, groups)

    def tests(self) -> pd.DataFrame:
        """The tests as a table: observed, expected, p_value, method."""
        rows = {
            "uniformity": self.uniformity,
            "dispersion": self.dispersion,
            "outliers": self.outliers,
        }
        if np.any(self.zeros):
            rows["zeros"] = self.zero_share
        return tabulated(rows)


def simulated_residuals(
    fit: FittedModel, n: int, seed, re: str | None, by: Any = None
) -> SimulatedResiduals:
    """See ``Fit.simulated_residuals``."""
    fit = fit.unfolded("simulated_residuals()")
    check_draws(n)
    draws_new_effects(re)  # refuses other words
    y, predicted, variables = fit.design.y, _predicted(fit, re), _variables(fit)
    used = np.ones(fit.design.n, bool)
    if fit.design.weights is not None:
        used = fit.design.weights > 0
    chunks = drawn(fit, n, seed, re)
    if by is not None:
        groups = SummedGroups.read(by, variables, used)
        y, predicted, used = groups.sums(y), groups.sums(predicted), groups.kept
        kept = {k: groups.constant(v) for k, v in variables.items()}
        variables = {k: v for k, v in kept.items() if v is not None}
        variables[groups.name] = groups.levels
        chunks = map(groups.sums, chunks)
    keep = (n + 1) * len(y) <= KEPT
    rng = np.random.default_rng(seeds(seed, 0)[0])
    words = "new random effects" if re != "conditional" else "conditional"
    facts = {
        "predicted": predicted,
        "re": words if fit.design.terms else "no random effects",
        "variables": variables,
    }
    if keep:
        ties = Ties.drawn(rng, (n + 1, len(y)))
        return replace(judged(y, np.concatenate(list(chunks)), used, ties), **facts)
    first = next(chunks)
    centre = (first.sum(axis=0) + y) / (len(first) + 1)
    below, equal = np.zeros(len(y)), np.zeros(len(y))
    spreads, zeros = [_spread(y[None], centre, used)], [_zeros(y[None], used)]
    for Y in _chain(first, chunks):
        below += (y > Y).sum(axis=0)
        equal += (y == Y).sum(axis=0)
        spreads.append(_spread(Y, centre, used))
        zeros.append(_zeros(Y, used))
    rank = below + np.floor(rng.uniform(size=len(y)) * (equal + 1))
    return SimulatedResiduals(
        scaled=(rank + rng.uniform(size=len(y))) / (n + 1),
        n=n,
        spreads=np.concatenate(spreads),
        zeros=np.concatenate(zeros),
        beyond=used & (equal == 0) & ((below == 0) | (below == n)),
        extremes=None,
        discrete=bool(equal.any()),
        draws=None,
        used=used,
        **facts,
    )


def statistic(
    fit: FittedModel, of: Callable[[np.ndarray], float], n: int, seed, re: str | None
) -> Test:
    """See ``Fit.simulated_statistic``."""
    fit = fit.unfolded("simulated_statistic()")
    check_draws(n)
    if not callable(of):
        raise NotApplicableError(
            f"of={_arguments.shown(of)} must be a function of the responses (nobs,) "
            "with a number for an answer, such as np.max"
        )
    values = [_number(of, fit.design.y)]
    for Y in drawn(fit, n, seed, re):
        values += [_number(of, row) for row in Y]
    found = np.array(values)
    if not np.isfinite(found).all():
        raise NotApplicableError(
            f"the statistic is not finite for {int((~np.isfinite(found)).sum())} of "
            f"{len(found)} responses (the data's is {found[0]:g})"
        )
    return two_sided(found)


def _number(of: Callable[[np.ndarray], float], y: np.ndarray) -> float:
    try:
        value = np.asarray(of(y.copy()))
    except Exception as error:
        raise NotApplicableError(
            f"of(y) failed for responses (nobs,): {type(error).__name__}: {error}"
        ) from error
    if value.size != 1 or value.dtype.kind not in "biuf":
        raise NotApplicableError(
            f"of(y) gave {_arguments.shown(value)}; it must be one number"
        )
    return float(value.reshape(()))


def check_draws(n: int) -> None:
    """Refuse a number of draws that says little.

    Raises:
        NotApplicableError: fewer than 20, or no whole number.
    """
    _arguments.whole(
        "n",
        n,
        20,
        _arguments.DRAWS,
        meaning="draws from the fit, at least 20: of fewer a rank says little",
        error=NotApplicableError,
    )


def seeds(seed, chunks: int) -> list[np.random.SeedSequence]:
    """Of the ties, and of each chunk of draws."""
    return _arguments.sequence(seed).spawn(chunks + 1)


def judged(
    y: np.ndarray, Y: np.ndarray, used: np.ndarray, ties: Ties
) -> SimulatedResiduals:
    """Residuals of y (nobs,) among all draws Y (n, nobs), of any model.

    used: (nobs,) rows that the fit used; ties: how equal values are ordered.
    """
    together = np.concatenate([y[None], Y])
    draws = ranks(together, ties)
    centre = together.sum(axis=0) / len(together)
    extreme = beyond_others(together)
    return SimulatedResiduals(
        scaled=draws[0],
        predicted=centre,
        n=len(Y),
        re="new random effects",
        spreads=_spread(together, centre, used),
        zeros=_zeros(together, used),
        beyond=used & extreme[0],
        extremes=extreme[:, used].sum(axis=1),
        draws=draws[:, used],
        used=used,
    )


def drawn(fit: FittedModel, n: int, seed, re: str | None) -> Iterator[np.ndarray]:
    """(d, nobs) responses, few enough at once."""
    at_once = max(1, KEPT // fit.design.n)
    starts = range(0, n, at_once)
    for start, own in zip(starts, seeds(seed, len(starts))[1:], strict=True):
        yield fit.drawn(min(at_once, n - start), own, re)


def _predicted(fit: FittedModel, re: str | None) -> np.ndarray:
    """(nobs,) means with the modes, or with random effects of zero."""
    if re == "conditional":
        return np.asarray(fit.fitted_values)
    return fit.population_means


def _chain(first: np.ndarray, rest: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    yield first
    yield from rest


def _spread(Y: np.ndarray, centre: np.ndarray, used: np.ndarray) -> np.ndarray:
    return np.mean((Y[:, used] - centre[used]) ** 2, axis=1)


def _zeros(Y: np.ndarray, used: np.ndarray) -> np.ndarray:
    return np.mean(Y[:, used] == 0, axis=1)


def _variables(fit: FittedModel) -> dict[str, np.ndarray]:
    """Labels by name: variables of the model and grouping factors."""
    terms = {t.factor: np.asarray(t.levels)[t.codes] for t in fit.design.terms}
    return {**terms, **{k: np.asarray(v) for k, v in fit.design.variables.items()}}


@dataclass(frozen=True)
class Ties:
    """How equal values are ordered, and where in its interval each rank lies.

    order, place: (d, n) uniform in (0, 1).
    """

    order: np.ndarray
    place: np.ndarray

    @staticmethod
    def drawn(rng: np.random.Generator, shape: tuple[int, int]) -> Ties:
        """At random."""
        return Ties(rng.uniform(size=shape), rng.uniform(size=shape))


def ranks(Y: np.ndarray, ties: Ties) -> np.ndarray:
    """(d, n) ranks within each column as numbers in (0, 1)."""
    columns = np.ascontiguousarray(Y.T)
    if np.abs(columns).max(initial=0.0) < WHOLE and (columns == np.rint(columns)).all():
        columns = columns + ties.order.T  # counts: one number to sort by
    order = np.argsort(columns, axis=1)
    ordered = np.take_along_axis(columns, order, axis=1)
    if (ordered[:, 1:] == ordered[:, :-1]).any():
        order = np.lexsort((ties.order.T, Y.T), axis=1)
    out = np.empty(columns.shape)
    np.put_along_axis(out, order, np.arange(len(Y), dtype=float)[None], axis=1)
    return (out.T + ties.place) / len(Y)


def beyond_others(Y: np.ndarray) -> np.ndarray:
    """(d, n) whether a value lies above or below all others of its column."""
    columns = np.arange(Y.shape[1])
    out = np.zeros(Y.shape, bool)
    for place in (Y.argmax(axis=0), Y.argmin(axis=0)):
        ends = Y[place, columns]
        alone = (ends == Y).sum(axis=0) == 1
        out[place[alone], columns[alone]] = True
    return out
