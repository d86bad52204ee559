"""Meta-analyses: linear mixed models whose residual covariance is known.

y = X beta + Z b + e, e ~ N(0, V), V known: the model of ``lmm`` with sigma held. Here
is what is said of one beside: heterogeneity (Cochran's Q, I^2 by Higgins and Thompson
2002 and by Nakagawa and Santos 2012 of several levels), the tests of Knapp and Hartung
(2003), prediction intervals.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from jaxglmm._errors import ModelError
from jaxglmm.fitting import meta_moments as moments
from jaxglmm.fitting.blocks import BlockEngine
from jaxglmm.fitting.components import covariances, parameters
from jaxglmm.fitting.fitted_correlated import FittedCorrelated
from jaxglmm.formatting import numbers
from jaxglmm.integrate import exact_blocks
from jaxglmm.runtime.host import on_host

if TYPE_CHECKING:
    from jaxglmm.formula.design import Design, NewRows

METHODS = ("REML", "ML", *moments.MOMENTS, "EE")
TESTS = ("z", "t", "knha")
STUDY = "study"


class Equal(NamedTuple):
    """Of the model of equal effects: y'Py, sigma, sigma^2 tr P, k - p."""

    Q: float
    sigma: float
    trace: float
    df: int

    @property
    def typical(self) -> float:
        """The typical sampling variance (Higgins and Thompson 2002)."""
        return self.sigma**2 * (self.df / self.trace) if self.df > 0 else np.nan


def equal_effects(design: Design) -> Equal:
    """Generalised least squares with V alone."""
    held = {name: x for name, x in design.fixed.items() if name == "sigma"}
    engine = BlockEngine(replace(design, terms=(), fixed=held), False)
    scale, sigma = engine.fixed.scale, held["sigma"]
    theta = np.zeros(1)  # V in units of sigma^2: no product is too large then
    problem, p = engine.shared, engine.rows.shape[1] - 1
    trace = 0.0
    with on_host():
        tables = [problem.tables(theta, stack)[0] for stack in problem.stacks]
        at = exact_blocks.marginal(problem, tables)
        moved = np.zeros((p, p))
        for a, part in zip(engine.arrangements, at.parts, strict=True):
            P = np.asarray(part.P)[a.pattern]
            root = a.padded(engine.root[:, None])[..., 0]
            trace += float(np.einsum("nii,ni->", P, root**2))
            G = np.asarray(part.PR)[..., :p] * root[..., None]
            moved += np.einsum("ntc,ntd->cd", G, G)
        if p:
            half = np.linalg.solve(np.asarray(at.LQ), moved)
            trace -= float(np.trace(np.linalg.solve(np.asarray(at.LQ), half.T)))
    Q = float(at.r2) * (scale / sigma) ** 2
    return Equal(Q, sigma, trace, len(engine.keep) - p)


@dataclass(frozen=True)
class MetaAnalysis:
    """A meta-analysis: effects, heterogeneity, and what is asked of them.

    model: the linear mixed model beneath, sigma held; method, test, level: as asked
    se_tau2: standard error of a single variance between studies, else NaN
    """

    model: FittedCorrelated
    method: str
    test: str
    level: float
    se_tau2: float = np.nan

    # Effects -------------------------------------------------------------------------

    @property
    def design(self) -> Design:
        """Names and arrays of the model."""
        return self.model.design

    @property
    def converged(self) -> bool:
        """Whether the search for the variances ended where it should.

        Those by moments, and equal effects, are found without one.
        """
        return self.model.converged

    @property
    def nobs(self) -> int:
        """Number of effects."""
        return self.model.nobs

    @property
    def coefficients(self) -> pd.Series:
        """The fixed effects by name."""
        names = list(self.design.x_names)
        return pd.Series(self.model.coefficients, index=names, name="estimate")

    @cached_property
    def vcov(self) -> np.ndarray:
        """(p, p) covariance of the coefficients; by Knapp and Hartung times Q / df."""
        vcov = np.asarray(self.model.estimates.vcov)
        if self.test != "knha":
            return vcov
        engine = self.model.engine
        at = engine.theta(self.model.estimates)
        with on_host():
            stacks = engine.problem.stacks
            tables = [engine.problem.tables(at, stack)[0] for stack in stacks]
            found = exact_blocks.marginal(engine.problem, tables)
        return vcov * float(found.r2) / max(self.Q_df, 1)

    @property
    def df(self) -> float:
        """Of the tests: k - p, or infinite of z."""
        return np.inf if self.test == "z" else float(self.Q_df)

    @property
    def table(self) -> pd.DataFrame:
        """estimate, std_error, statistic, df, p_value, conf_low, conf_high."""
        held = [name in self.design.fixed for name in self.design.x_names]
        se = np.where(held, np.nan, np.sqrt(np.diagonal(self.vcov)))
        estimate = self.coefficients.to_numpy()
        half = self._quantile * se
        with np.errstate(divide="ignore", invalid="ignore"):
            statistic = estimate / se
        return pd.DataFrame(
            {
                "estimate": estimate,
                "std_error": se,
                "statistic": statistic,
                "df": self.df,
                "p_value": self._p(statistic),
                "conf_low": estimate - half,
                "conf_high": estimate + half,
            },
            index=self.coefficients.index,
        )

    def moderators(self) -> dict[str, float]:
        """The test of all coefficients but the intercept (of it, where it is alone).

        Raises:
            ModelError: the model has no coefficient.
        """
        from scipy.stats import chi2, f

        names = [*self.coefficients.index]
        held = set(self.design.fixed)
        at = [i for i, n in enumerate(names) if n != "(Intercept)" and n not in held]
        at = at or [i for i, n in enumerate(names) if n not in held]
        if not at:
            raise ModelError("the model has no coefficient to test")
        beta = self.coefficients.to_numpy()[at]
        QM = float(beta @ np.linalg.solve(self.vcov[np.ix_(at, at)], beta))
        m = len(at)
        if np.isinf(self.df):
            return {"QM": QM, "df": m, "p_value": float(chi2.sf(QM, m))}
        F = QM / m
        p = float(f.sf(F, m, self.df))
        return {"QM": F, "df": m, "den_df": self.df, "p_value": p}

    # Heterogeneity -------------------------------------------------------------------

    @cached_property
    def equal(self) -> Equal:
        """What is left of the model of equal effects."""
        return equal_effects(self.design)

    @property
    def Q(self) -> float:
        """Cochran's Q, of the residuals under equal effects."""
        return self.equal.Q

    @property
    def Q_df(self) -> int:
        """Degrees of freedom of Q."""
        return self.equal.df

    @property
    def Q_p(self) -> float:
        """p-value of Q."""
        from scipy.stats import chi2

        return float(chi2.sf(self.Q, self.Q_df)) if self.Q_df else 1.0

    @property
    def tau2(self) -> float:
        """The variance between studies; of several levels their sum, mean over rows."""
        return float(sum(self.variances.values()))

    @cached_property
    def variances(self) -> dict[str, float]:
        """Term -> variance of its effects, mean over the rows where it differs."""
        found = zip(self.design.terms, covariances(self.model.estimates), strict=True)
        return {
            term.label: float(
                np.mean(np.einsum("ni,ij,nj->n", term.values, S, term.values))
            )
            for term, S in found
        }

    @property
    def components(self) -> pd.DataFrame:
        """Standard deviations and correlations by name: estimate."""
        found = parameters(self.design, self.model.estimates, residual=False)
        values = [x.value for x in found]
        return pd.DataFrame({"estimate": values}, index=[x.label for x in found])

    @property
    def _between(self) -> dict[str, float]:
        if self.design.terms:
            return self.variances
        excess = self.Q / self.Q_df - 1.0 if self.Q_df else 0.0
        return {STUDY: self._typical * max(excess, 0.0)}

    @property
    def _typical(self) -> float:
        """The typical sampling variance; where Q says nothing, the mean."""
        if self.Q_df > 0:
            return self.equal.typical
        return float(np.mean(self.sampling_variances))

    @property
    def I2(self) -> float:
        """Per cent of the variance that is not sampling variance."""
        return float(sum(self.I2_by_level.values()))

    @property
    def I2_by_level(self) -> dict[str, float]:
        """Term -> per cent of the total variance, the sampling variance in it."""
        own, typical = self._between, self._typical
        total = sum(own.values()) + typical
        return {name: 100.0 * x / total for name, x in own.items()}

    @property
    def H2(self) -> float:
        """Total over sampling variance."""
        return sum(self._between.values()) / self._typical + 1.0

    # Likelihood ----------------------------------------------------------------------

    @property
    def log_likelihood(self) -> float:
        """Of ML or REML; of REML with log|X'X| / 2, as in metafor.

        ``model.log_likelihood`` is without, as in lme4.
        """
        out = self.model.log_likelihood
        if not self.model.reml:
            return out
        held = [name in self.design.fixed for name in self.design.x_names]
        X = self.design.X[self.design.counted][:, ~np.array(held, bool)]
        R = np.linalg.qr(X, mode="r")
        return out + float(np.sum(np.log(np.abs(np.diagonal(R)))))

    @property
    def npar(self) -> int:
        """Coefficients and variance parameters that are estimated."""
        by_moments = self.method in moments.MOMENTS
        return self.model.npar + int(by_moments)

    @property
    def aic(self) -> float:
        """Akaike's criterion."""
        return -2 * self.log_likelihood + 2 * self.npar

    @property
    def bic(self) -> float:
        """Schwarz's criterion; of REML with k - p studies."""
        n = self.Q_df if self.method == "REML" else self.nobs
        return -2 * self.log_likelihood + np.log(n) * self.npar

    # Predictions ---------------------------------------------------------------------

    def predict(self, newdata: Any = None) -> pd.DataFrame:
        """Mean effects with confidence and prediction intervals.

        Args:
            newdata: a table with the moderators, or (m, p) rows of the design; None
                for the mean effect, where that is the model.

        Returns:
            fit, se, lower, upper, pred_lower, pred_upper: a row each.

        Raises:
            ModelError: moderators are needed and none are given.
        """
        X, between = self._new(newdata)
        mean = X @ self.coefficients.to_numpy()
        var = np.einsum("ij,jk,ik->i", X, self.vcov, X)
        half, wide = (self._quantile * np.sqrt(x) for x in (var, var + between))
        return pd.DataFrame(
            {
                "fit": mean,
                "se": np.sqrt(var),
                "lower": mean - half,
                "upper": mean + half,
                "pred_lower": mean - wide,
                "pred_upper": mean + wide,
            }
        )

    def _new(self, newdata: Any) -> tuple[np.ndarray, np.ndarray | float]:
        """Rows of X, and the variance of the effects there."""
        design, names = self.design, self.design.x_names
        plain = all(t.names == ("(Intercept)",) for t in design.terms)
        if newdata is None:
            if names not in ((), ("(Intercept)",)) or not plain:
                raise ModelError(
                    "a meta-regression predicts for given moderators: predict(table), "
                    f"or rows of {len(names)} numbers ({', '.join(names)})"
                )
            return np.ones((1, len(names))), self.tau2
        if isinstance(newdata, np.ndarray | list | tuple):
            X = np.atleast_2d(np.asarray(newdata, float))
            if X.shape[1] != len(names) or not plain:
                raise ModelError(
                    f"predict takes rows of {len(names)} numbers ({', '.join(names)}), "
                    f"not of {X.shape[1]}"
                    if plain
                    else "predict takes a table here, for effects differ in variance"
                )
            return X, self.tau2
        if design.recipe is None:
            raise ModelError("predict takes rows of numbers here: arrays were fitted")
        rows: NewRows = design.recipe.new_rows(newdata, random=not plain)
        if plain:
            return rows.X, self.tau2
        found = zip(rows.terms, covariances(self.model.estimates), strict=True)
        each = [np.einsum("ni,ij,nj->n", t.values, S, t.values) for t, S in found]
        return rows.X, np.sum(each, axis=0)

    def blup(self) -> np.ndarray:
        """(k,) true effects of the rows, shrunk towards their means."""
        return np.asarray(self.model.fitted_values)

    @property
    def sampling_variances(self) -> np.ndarray:
        """(k,) the known variances."""
        w = self.design.weights
        assert w is not None
        return self.model.sigma**2 / w

    @property
    def _quantile(self) -> float:
        from scipy.stats import norm, t

        upper = (1 + self.level) / 2
        return float(norm.ppf(upper) if np.isinf(self.df) else t.ppf(upper, self.df))

    def _p(self, statistic: np.ndarray) -> np.ndarray:
        from scipy.stats import norm, t

        size = np.abs(statistic)
        return 2 * (norm.sf(size) if np.isinf(self.df) else t.sf(size, self.df))

    def __repr__(self) -> str:
        p = numbers.p_value(self.Q_p)
        several = len(self.components) > 1
        what = "effects" if several else "study" if self.nobs == 1 else "studies"
        head = [
            f"Meta-analysis of {self.nobs} {what} ({self.method}; tests: {self.test})"
        ]
        shares = f"I^2 {self.I2:.1f}%, H^2 {numbers.general(self.H2)}"
        if several:
            levels = ", ".join(f"{k} {x:.1f}%" for k, x in self.I2_by_level.items())
            head += [f"I^2 {self.I2:.1f}% ({levels})", "", self._shown_components()]
        elif self.design.terms:
            error = f" (SE {self.se_tau2:.4g})" if np.isfinite(self.se_tau2) else ""
            head.append(f"tau^2 {self.tau2:.4g}{error}, {shares}")
        else:
            head.append(shares)
        head.append(
            f"Heterogeneity: Q({self.Q_df}) = {numbers.general(self.Q, 6)}, p {p}"
        )
        return "\n".join((*head, "", self._shown_table())).rstrip()

    def _shown_table(self) -> str:
        table = self.table
        if not len(table):
            return ""
        estimate, error = numbers.with_errors(table["estimate"], table["std_error"])
        shown = {"estimate": estimate, "std_error": error}
        shown["statistic"] = [numbers.general(x) for x in table["statistic"]]
        if np.isfinite(self.df):
            shown["df"] = numbers.df(table["df"].tolist())
        shown["p_value"] = [numbers.p_value(x) for x in table["p_value"]]
        for name in ("conf_low", "conf_high"):
            shown[name] = numbers.column(table[name].tolist())
        return pd.DataFrame(shown, index=table.index).to_string()

    def _shown_components(self) -> str:
        fixed = self.design.fixed
        held = ["held" if name in fixed else "" for name in self.components.index]
        shown = self.components.assign(held=held) if any(held) else self.components
        return shown.to_string(float_format="%.4f")
