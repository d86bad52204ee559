"""Linear hypotheses about the fixed effects, and what their tests return."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from jaxglmm._errors import NotApplicableError
from jaxglmm.compat.statsmodels.hypotheses import constraints
from jaxglmm.compat.statsmodels.mixedlm.fitted import FitNumbers
from jaxglmm.numerics import multiplicity

ADJUST = {"hs": "holm-sidak", **{name: name for name in multiplicity.METHODS}}


@dataclass
class ContrastResults:
    """t- or z-tests of the rows of a hypothesis.

    effect, sd, statistic, pvalue: (k,); df_denom: degrees of freedom, a number or (k,),
    infinite for z; distribution: "t" or "norm".
    """

    effect: np.ndarray
    sd: np.ndarray
    df_denom: Any
    names: Sequence[str]
    use_t: bool

    @property
    def statistic(self) -> np.ndarray:
        """Effects over their standard errors."""
        return self.effect / self.sd

    @property
    def tvalue(self) -> np.ndarray:
        """``statistic``."""
        return self.statistic

    zvalue = tvalue

    @property
    def distribution(self) -> str:
        """The reference distribution."""
        return "t" if self.use_t else "norm"

    @property
    def dist(self):
        """The reference distribution, of SciPy."""
        return stats.t(self.df_denom) if self.use_t else stats.norm()

    @property
    def pvalue(self) -> np.ndarray:
        """Two-sided."""
        return 2 * self.dist.sf(np.abs(self.statistic))

    def conf_int(self, alpha: float = 0.05) -> np.ndarray:
        """(k, 2) limits."""
        q = self.dist.ppf(1 - alpha / 2)
        return np.column_stack([self.effect - q * self.sd, self.effect + q * self.sd])

    def summary_frame(
        self, xname: Sequence[str] | None = None, alpha: float = 0.05
    ) -> pd.DataFrame:
        """The table as a frame."""
        letter = "t" if self.use_t else "z"
        limits = self.conf_int(alpha)
        return pd.DataFrame(
            {
                "coef": self.effect,
                "std err": self.sd,
                letter: self.statistic,
                f"P>|{letter}|": self.pvalue,
                "Conf. Int. Low": limits[:, 0],
                "Conf. Int. Upp.": limits[:, 1],
            },
            index=list(self.names if xname is None else xname),
        )

    def summary(
        self,
        xname: Sequence[str] | None = None,
        alpha: float = 0.05,
        title: str | None = None,
    ) -> str:
        """The table as text, laid out as statsmodels' summaries are."""
        frame = self.summary_frame(xname, alpha)
        wide = max(10, *(len(str(name)) for name in frame.index))
        heads = [*frame.columns[:4], f"[{alpha / 2:g}", f"{1 - alpha / 2:g}]"]
        lines = [" " * wide + _cells(heads)]
        for name, row in zip(frame.index, frame.to_numpy(), strict=True):
            values = [f"{row[0]:.4f}", *(f"{v:.3f}" for v in row[1:])]
            lines.append(f"{name!s:<{wide}}" + _cells(values))
        width = len(lines[0])
        head = (title or "Test for Constraints").center(width)
        rule, thin = "=" * width, "-" * width
        return "\n".join([head, rule, lines[0], thin, *lines[1:], rule])

    def __repr__(self) -> str:
        return self.summary()


def _cells(texts: Sequence[str]) -> str:
    """Six columns of a summary, right-aligned."""
    widths = (11, 11, 11, 11, 12, 12)
    return "".join(f"{t:>{w}}" for t, w in zip(texts, widths, strict=True))


@dataclass
class WaldResults:
    """A joint test: ``statistic``, ``pvalue``, ``df_num``, ``df_denom``."""

    statistic: Any
    df_num: int
    df_denom: float
    distribution: str

    def as_matrix(self) -> WaldResults:
        """The same with ``statistic`` (1, 1), which ``scalar=False`` asks for."""
        return replace(self, statistic=np.array([[float(self.statistic)]]))

    @property
    def _number(self) -> float:
        return float(np.squeeze(self.statistic))

    @property
    def fvalue(self) -> Any:
        """The statistic of an F-test."""
        return self.statistic

    @property
    def pvalue(self) -> float:
        """Upper tail."""
        if self.distribution == "F":
            return float(stats.f.sf(self._number, self.df_num, self.df_denom))
        return float(stats.chi2.sf(self._number, self.df_num))

    def summary(self) -> str:
        """One line."""
        if self.distribution == "F":
            return (
                f"<F test: F={self.statistic}, p={self.pvalue}, "
                f"df_denom={self.df_denom:.3g}, df_num={self.df_num:g}>"
            )
        return (
            f"<Wald test (chi2): statistic={self.statistic}, p-value={self.pvalue}, "
            f"df_denom={self.df_num:.3g}>"
        )

    def __repr__(self) -> str:
        return self.summary()


class WaldTable:
    """Joint tests of several terms: ``table`` and ``summary_frame``."""

    def __init__(self, tests: dict[str, WaldResults]):
        self.tests = tests
        self.table = pd.DataFrame(
            {
                "statistic": [t.statistic for t in tests.values()],
                "pvalue": [t.pvalue for t in tests.values()],
                "df_constraint": [t.df_num for t in tests.values()],
                "df_denom": [t.df_denom for t in tests.values()],
            },
            index=list(tests),
        )
        if all(t.distribution != "F" for t in tests.values()):
            self.table = self.table.drop(columns="df_denom")

    def summary_frame(self) -> pd.DataFrame:
        """The table under the names of a summary."""
        f = "df_denom" in self.table
        statistic, p = ("F", "P>F") if f else ("chi2", "P>chi2")
        return self.table.rename(
            columns={
                "statistic": statistic,
                "pvalue": p,
                "df_constraint": "df constraint",
                "df_denom": "df denom",
            }
        )

    def __repr__(self) -> str:
        return self.summary_frame().to_string()


class PairwiseResults:
    """Pairwise differences of a factor's levels: ``result_frame``."""

    def __init__(self, result_frame: pd.DataFrame, contrasts: np.ndarray):
        self.result_frame, self.contrasts = result_frame, contrasts

    def __repr__(self) -> str:
        return self.result_frame.to_string()


def hypothesis(
    spec: Any, names: Sequence[str], k_fe: int
) -> tuple[np.ndarray, np.ndarray]:
    """(k, m) matrix and (k,) right side from a matrix, (R, q), text, or a mapping.

    Columns are the fixed effects, or all packed parameters.
    """
    q: Any = 0.0
    if isinstance(spec, tuple) and len(spec) == 2 and not isinstance(spec[0], str):
        spec, q = spec
    if isinstance(spec, str) or (
        isinstance(spec, list | tuple) and spec and isinstance(spec[0], str)
    ):
        return _from_text(spec, names)
    if isinstance(spec, dict):
        return _from_text([f"{k} = {v}" for k, v in spec.items()], names)
    R = np.atleast_2d(np.asarray(spec, float))
    if R.shape[1] not in (k_fe, len(names)):
        raise ValueError(f"r_matrix for t-test should have {k_fe:d} columns")
    return R, np.broadcast_to(np.asarray(q, float).ravel(), (len(R),)).copy()


def _from_text(spec: Any, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    texts = [spec] if isinstance(spec, str) else list(spec)
    return constraints(texts, names)


def is_text(spec: Any) -> bool:
    """Whether a hypothesis is given in words."""
    if isinstance(spec, list | tuple):
        return bool(spec) and isinstance(spec[0], str)
    return isinstance(spec, str | dict)


def fixed_columns(R: np.ndarray, k_fe: int) -> np.ndarray | None:
    """The columns of the fixed effects where the others are zero, else None."""
    return R[:, :k_fe] if not R[:, k_fe:].any() else None


def t_test(results: FitNumbers, spec: Any, use_t, ddf: str | None):
    """See ``MixedLMResults.t_test``."""
    names = results._names
    R, q = hypothesis(spec, names, results.k_fe)
    if R.shape[1] != results.k_fe and not is_text(spec):
        raise ValueError(f"r_matrix for t-test should have {results.k_fe:d} columns")
    fixed = fixed_columns(R, results.k_fe)
    labels = [f"c{i}" for i in range(len(R))]
    if ddf is not None:
        if fixed is None:
            raise NotApplicableError("degrees of freedom are for fixed effects alone")
        tests = [
            _by_fit(results, row[None], r, ddf) for row, r in zip(fixed, q, strict=True)
        ]
        return ContrastResults(
            np.array([t.estimate[0] for t in tests]),
            np.array([t.std_error[0] for t in tests]),
            np.array([t.den_df for t in tests]),
            labels,
            True,
        )
    effect, cov = _linear(results, R, q)
    chosen = results.use_t if use_t is None else bool(use_t)
    df = results.df_resid if chosen else np.inf
    return ContrastResults(effect, np.sqrt(np.diagonal(cov)), df, labels, chosen)


def _by_fit(results: FitNumbers, R: np.ndarray, q, ddf: str):
    fit = results.jg_fit
    if fit is None:
        raise NotApplicableError(
            f"ddf={ddf!r} needs a fit without held, tied or penalised parameters; "
            "jg.lmm fits most of these models, or leave out ddf for z-tests"
        )
    return fit.test(R, q, ddf=ddf)


def _linear(results: FitNumbers, R: np.ndarray, q: np.ndarray):
    """R params - q and its covariance."""
    used = np.flatnonzero(R.any(axis=0))  # others may be without an error
    R = R[:, used]
    cov = results.covariance[np.ix_(used, used)]
    return R @ results.params_array[used] - q, R @ cov @ R.T


def wald_test(
    results: FitNumbers, spec, cov_p, invcov, use_f, df_constraints, ddf
) -> WaldResults:
    """See ``MixedLMResults.wald_test``."""
    R, q = hypothesis(spec, results._names, results.k_fe)
    if ddf is not None:
        fixed = fixed_columns(R, results.k_fe)
        if fixed is None:
            raise NotApplicableError("degrees of freedom are for fixed effects alone")
        found = _by_fit(results, fixed, q, ddf)
        return WaldResults(found.F, int(found.num_df), found.den_df, "F")
    effect, cov = _linear(results, R, q)
    if cov_p is not None:
        m = R.shape[1]
        cov = R @ np.asarray(cov_p, float)[:m, :m] @ R.T
    if invcov is None:
        try:
            value = float(effect @ np.linalg.solve(cov, effect))
        except np.linalg.LinAlgError:
            raise ValueError(
                "the rows of r_matrix are linearly dependent: leave out the redundant"
            ) from None
    else:
        value = float(effect @ np.asarray(invcov, float) @ effect)
    J = len(R) if df_constraints is None else int(df_constraints)
    if results.use_t if use_f is None else use_f:
        return WaldResults(value / J, J, results.df_resid, "F")
    return WaldResults(value, J, J, "chi2")


def wald_terms(
    results: FitNumbers, skip_single: bool, extra, combine_terms, ddf
) -> WaldTable:
    """Joint tests of the terms of the formula, or of single columns."""
    columns = term_columns(results)
    if combine_terms:
        for text in combine_terms:
            own = [j for name, js in columns.items() if text in name for j in js]
            columns[text] = sorted(set(own))
    if extra:
        for item in extra:
            columns[" ".join(item)] = [results.model.exog_names.index(n) for n in item]
    tests = {}
    for name, js in columns.items():
        if skip_single and len(js) == 1:
            continue
        R = np.eye(results.k_fe)[js]
        tests[name] = wald_test(results, R, None, None, None, None, ddf)
    return WaldTable(tests)


def term_columns(results: FitNumbers) -> dict[str, list[int]]:
    """Term -> its columns."""
    spec: Any = results.model._spec
    names = results.model.exog_names
    if spec is None:
        return {name: [j] for j, name in enumerate(names)}
    return {k: list(v) for k, v in spec.term_columns.items() if v}


def pairwise(
    results: FitNumbers, term: str, method: str, alpha: float, labels
) -> PairwiseResults:
    """Differences of all pairs of levels of a treatment-coded factor."""
    columns = term_columns(results)
    if term not in columns:
        raise ValueError(f"no term {term!r}; there are {', '.join(columns)}")
    js = columns[term]
    names = labels or _level_names(results, term, js)
    coding = _treatment(results, term, names, js)
    rows, index = [], []
    for a, b in combinations(range(len(names)), 2):
        rows.append(coding[b] - coding[a])
        index.append(f"{names[b]}-{names[a]}")
    R = np.array(rows)
    found = t_test(results, R, None, None)
    frame = found.summary_frame(index, alpha)
    if method not in ADJUST:
        raise ValueError(f"method={method!r} must be one of {', '.join(ADJUST)}")
    adjusted = multiplicity.adjusted(found.pvalue, ADJUST[method])
    frame[f"pvalue-{method}"] = adjusted
    frame[f"reject-{method}"] = adjusted <= alpha
    return PairwiseResults(frame, R)


def _level_names(results: FitNumbers, term: str, js: list[int]) -> list[str]:
    spec: Any = results.model._spec
    found = None if spec is None else spec.levels_of(term)
    if found is None:
        raise ValueError(f"{term!r} is not a factor with levels")
    return found


def _treatment(results, term: str, names, js: list[int]) -> np.ndarray:
    """(levels, k_fe): what each level adds; the level without a column adds nothing."""
    out = np.zeros((len(names), results.k_fe))
    if len(js) == len(names):
        out[np.arange(len(names)), js] = 1.0
        return out
    shown = [results.model.exog_names[j] for j in js]
    for k, name in enumerate(names):
        own = [
            j
            for j, text in zip(js, shown, strict=True)
            if text.endswith((f"[T.{name}]", f"[{name}]"))
        ]
        if own:
            out[k, own[0]] = 1.0
    if len(js) != len(names) - 1 or (out.sum(1) == 0).sum() != 1:
        raise ValueError(f"{term!r} is not in treatment coding")
    return out
