"""Predictions of a model of several linear predictors, with glmmTMB's types.

``response`` is E y with added zeros counted in, ``conditional`` E y without them (of a
truncated family given y > 0), ``zprob`` and ``zlink`` the probability of an added zero
and its logit, ``link`` the linear predictor of the mean, ``disp`` the dispersion.

Standard errors by the delta method. Conditional predictions vary with beta and the
random effects, the variances and a common dispersion taken as known, as elsewhere;
those of the population, and means over random effects, with all parameters. Limits are
made on the scale of the predictor, of ``response`` and ``conditional`` on the link
scale of the mean. Prediction limits are quantiles of simulated observations, in which
the uncertainty of the linear predictors is drawn too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxglmm._errors import NotApplicableError
from jaxglmm.fitting import predictor
from jaxglmm.fitting.coefficients import t_quantile
from jaxglmm.fitting.conditional_variance import prediction_variance
from jaxglmm.fitting.linear import lambdas, roots
from jaxglmm.formula.design import NewRows, joined_rows
from jaxglmm.numerics.normal_rule import normal_rule
from jaxglmm.postestimation.prediction import predict as _predict
from jaxglmm.postestimation.prediction.asked import Asked

if TYPE_CHECKING:
    from jaxglmm.fitting.fitted_components import FittedComponents

TYPES = ("response", "conditional", "link", "zprob", "zlink", "disp")
NODES = 15  # Gauss-Hermite nodes a predictor, for means over random effects
STEP = 1e-4  # of central differences: of a predictor, and of a standard error
DRAWS = 4000  # of a new observation
AT_ONCE = 2_000_000  # draws in memory
SEED = 0

Rows = np.ndarray


def predict(fit: FittedComponents, asked: Asked):
    """(n,) values, or a frame with ``fit`` and what else was asked for."""
    asked = asked.read(TYPES)
    refuse(fit, asked.type, asked.interval)
    new = _rows(fit, asked)
    asked.warn(new)
    m = asked.numbers_of_trials(len(new.X))
    out = Predicted(fit, new, asked.type, asked.re, 1.0 if m is None else m)
    table = {"fit": out.values()}
    if asked.se or asked.interval == "confidence":
        table |= out.errors(table["fit"], asked.level)
    if asked.interval == "prediction":
        limits = out.observations(m, asked.newdata is None, asked.level)
        table["lower"], table["upper"] = limits
    return asked.answer(table, new.index)


def refuse(fit: FittedComponents, type: str, interval) -> None:
    """Refuse a type of what the model has not."""
    if type in ("zprob", "zlink") and "zi" not in fit.design.parts:
        raise NotApplicableError(
            f"type={type!r} is of a model of zeros; this fit has none (zi= in jg.glmm)"
        )
    if type == "disp" and "disp" not in fit.design.parts and not fit.family.n_phi:
        raise NotApplicableError(
            f"type='disp': family {fit.family_name!r} has no dispersion parameter"
        )
    if interval == "prediction" and type != "response":
        raise NotApplicableError(
            "interval='prediction' is for a new observation: type='response'. For "
            f"{type!r} use interval='confidence'"
        )


def _rows(fit: FittedComponents, asked: Asked) -> NewRows:
    """The rows asked about, NaN where a predictor cannot be told."""
    if asked.newdata is None:
        d = fit.design
        zero = np.zeros((len(d.parts), d.n))
        return NewRows(d.X, zero if d.offset is None else d.offset, d.terms, d.index)
    pairs = zip(fit.design.parts.values(), asked.design(fit).parts, strict=True)
    known = [_predict.answerable_of(part, rows) for part, rows in pairs]
    return joined_rows(tuple(known))


class Predicted:
    """One question about some rows."""

    def __init__(
        self, fit: FittedComponents, new: Any, type: str, re: str, trials: Any
    ):
        self.fit, self.new, self.type = fit, new, type
        self.re = re if fit.design.terms else "population"
        self.trials = trials
        self.names = fit.components

    def values(self) -> Rows:
        """The answer at the estimates."""
        e = self.fit.estimates
        if self.re == "conditional":
            return self._of(self._predictors(), e.phi)
        return self._at(e.beta, [e.sigma * lam for lam in e.lam], e.phi)

    def errors(self, value: Rows, level: float) -> dict[str, Rows]:
        """Standard errors and confidence limits."""
        if self.re == "conditional":
            error = np.sqrt(self._conditional_variance())
        else:
            error = self._parameter_error(value)
        half = t_quantile(level, np.full(len(value), np.inf))
        low, high = self.limits(value, error, half)
        return {"se": error, "lower": low, "upper": high}

    def limits(self, value: Rows, error: Rows, half: Rows) -> tuple[Rows, Rows]:
        """Confidence limits, half standard errors on the scale of the predictor."""
        to, back, slope = self._scale()
        with np.errstate(divide="ignore", invalid="ignore"):
            middle = np.asarray(to(value / self._size), float)
            reach = half * error / self._size / np.abs(slope(middle))
        ends = np.stack([back(middle - reach), back(middle + reach)]) * self._size
        return np.min(ends, axis=0), np.max(ends, axis=0)

    @property
    def _size(self) -> Any:
        return self.trials if self.type in ("response", "conditional") else 1.0

    def _scale(self) -> tuple[Callable, Callable, Callable]:
        """To the scale of limits and back, and the slope of the way back."""
        if self.type in ("link", "zlink", "displink"):
            return (lambda x: x), (lambda x: x), np.ones_like
        k = {"zprob": "zi", "disp": "disp"}.get(self.type, "cond")
        links = dict(zip(self.names, self.fit.family.predictor_links, strict=True))
        link = links.get(k, links["cond"])
        if k == "disp" and k not in links:
            return np.log, np.exp, np.exp
        return link.link, link.inverse, link.slope

    def _predictors(self) -> Rows:
        """(K, n) with random effects."""
        e, new, K = self.fit.estimates, self.new, len(self.names)
        eta = self._fixed(e.beta)
        return eta + predictor.random_parts(new.terms, e.b, K)

    def _fixed(self, beta: Rows) -> Rows:
        new = self.new
        columns = self.fit.design.columns
        return predictor.fixed_parts(new.X, beta, new.offset, columns)

    def _of(self, eta: Rows, phi: Rows) -> Rows:
        """The answer from predictors (K, ...)."""
        family: Any = self.fit.family
        if self.type == "link":
            return eta[0]
        if self.type in ("zlink", "zprob"):
            own = eta[self.names.index("zi")]
            return own if self.type == "zlink" else 1 / (1 + np.exp(-own))
        if self.type in ("disp", "displink"):
            last = eta[-1] if "disp" in self.names else phi[0] + 0 * eta[0]
            return last if self.type == "displink" else np.exp(last)
        mu = family.parameters(eta)
        mean = family.conditional_mean if self.type == "conditional" else family.mean_of
        size = self._size
        if np.ndim(size) and np.ndim(mu) > 2:
            size = size[:, None]
        return size * np.asarray(mean(mu, phi), float)

    def _at(self, beta: Rows, lam: list[Rows], phi: Rows) -> Rows:
        """The answer without random effects, or its mean over them."""
        eta = self._fixed(beta)
        if self.re != "marginal":
            return self._of(eta, phi)
        variance = np.zeros(eta.shape)
        for term, root in zip(self.new.terms, lam, strict=True):
            variance[term.predictor] += np.sum((term.values @ root) ** 2, axis=1)
        some = [k for k in range(len(eta)) if variance[k].any()]
        z, w = normal_rule(NODES)
        grids = np.meshgrid(*[z] * len(some), indexing="ij")
        weight = np.ones(1)
        for _ in some:
            weight = np.multiply.outer(weight, w).ravel()
        every = np.repeat(eta[:, :, None], len(weight), axis=2)
        for k, grid in zip(some, grids, strict=True):
            every[k] += np.sqrt(variance[k])[:, None] * grid.ravel()
        return self._of(every, phi) @ weight

    def _conditional_variance(self) -> Rows:
        """By the slopes in the predictors, times their rows."""
        eta, phi = self._predictors(), self.fit.estimates.phi
        slopes = []
        for k in range(len(eta)):
            step = np.zeros((len(eta), 1))
            step[k] = STEP
            rise = self._of(eta + step, phi) - self._of(eta - step, phi)
            slopes.append(rise / (2 * STEP))
        return prediction_variance(self.fit, self._along(slopes))

    def _along(self, slopes: list[Any]) -> NewRows:
        """The rows of a combination of the predictors, one number a row each."""
        ones = np.ones(len(self.new.X))
        each = [np.asarray(s * ones)[:, None] for s in slopes]
        X = self.new.X * np.hstack([each[k] for k in self.fit.design.of_x])
        return _combined(self.new, X, each)

    def _parameter_error(self, value: Rows) -> Rows:
        """By the slopes in all parameters."""
        J = self.jacobian(len(value))
        variance = np.einsum("ij,jk,ik->i", J, self.fit.parameter_covariance, J)
        return np.sqrt(np.maximum(variance, 0.0))

    def jacobian(self, n: int) -> Rows:
        """(n, k) slopes in the internal parameters, by central differences."""
        engine = self.fit.engine
        psi = np.asarray(self.fit.internal()[0], float)

        def at(x: Rows) -> Rows:
            beta, theta, phi = engine.base.split(x)
            own = roots(engine.factors, lambdas(engine.base, theta))
            return self._at(engine.R_inverse @ beta, list(own), phi)

        # a parameter at an end of its range has no variance, or less by rounding
        spread = np.sqrt(np.maximum(np.diagonal(self.fit.parameter_covariance), 0.0))
        J = np.zeros((n, len(psi)))
        for j, size in enumerate(spread):
            if size > 0 and np.isfinite(size):
                step = np.zeros(len(psi))
                step[j] = STEP * min(size, 1.0)
                J[:, j] = (at(psi + step) - at(psi - step)) / (2 * step[j])
        return J

    def observations(self, m, own: bool, level: float) -> tuple[Rows, Rows]:
        """Quantiles of new observations: at least ``level`` between them."""
        fit = self.fit
        eta = self._predictors() if self.re == "conditional" else None
        eta = self._fixed(fit.estimates.beta) if eta is None else eta
        trials = self._trials(m, own, eta.shape[1])
        root = _roots_of(self._covariance())
        rng = np.random.default_rng(SEED)
        low, high = np.empty(eta.shape[1]), np.empty(eta.shape[1])
        size = max(1, AT_ONCE // DRAWS)
        for start in range(0, eta.shape[1], size):
            here = slice(start, start + size)
            z = rng.standard_normal((len(eta), eta[0, here].size, DRAWS))
            drawn = eta[:, here, None] + np.einsum("nkm,mnd->knd", root[here], z)
            out_of = 1.0 if trials is None else trials[here, None]
            mu = fit.family.parameters(drawn)
            y = fit.family.simulate(rng, mu, fit.estimates.phi, out_of)
            tail = (1 - level) / 2
            low[here] = np.quantile(y, tail, axis=1, method="lower")
            high[here] = np.quantile(y, 1 - tail, axis=1, method="higher")
        if trials is not None and m is None:
            return low / trials, high / trials
        return low, high

    def _trials(self, m, own: bool, n: int) -> Rows | None:
        known = self.fit.design.trials
        if self.fit.family.family_kind != "binomial":
            return known if own else None
        if m is not None:
            return m
        if known is not None and own:
            return known
        if known is None or (known == 1).all():
            return np.ones(n)
        raise NotApplicableError(
            "interval='prediction' of a binomial response needs the numbers of trials "
            "of the new rows: pass trials= (a number, a column's name or an array)"
        )

    def _covariance(self) -> Rows:
        """(n, K, K) of the linear predictors of a new observation."""
        K, n = len(self.names), len(self.new.X)
        re = "conditional" if self.re == "conditional" else "population"
        unit = np.eye(K)
        out = np.zeros((n, K, K))

        def variance(a: Rows) -> Rows:
            return prediction_variance(self.fit, self._along(list(a)), re)

        for k in range(K):
            out[:, k, k] = variance(unit[k])
        for k, l in combinations(range(K), 2):
            both = variance(unit[k] + unit[l])
            out[:, k, l] = (both - out[:, k, k] - out[:, l, l]) / 2
            out[:, l, k] = out[:, k, l]
        if self.re == "marginal":
            pairs = zip(self.new.terms, self.fit.estimates.lam, strict=True)
            for term, lam in pairs:
                k = term.predictor
                out[:, k, k] += np.sum((term.values @ lam) ** 2, axis=1)
        return out


def _combined(new: NewRows, X: Rows, each: list[Rows]) -> NewRows:
    """The rows with other columns, each term's values times its predictor's number."""
    terms = []
    for t in new.terms:
        assert isinstance(
            t.predictor, int
        )  # effects across predictors: categories alone
        terms.append(replace(t, values=t.values * each[t.predictor]))
    return NewRows(X, new.offset[0], tuple(terms), new.index)


def _roots_of(covariance: Rows) -> Rows:
    """(n, K, K) square roots; NaN stay."""
    known = np.isfinite(covariance).all(axis=(1, 2), keepdims=True)
    values, vectors = np.linalg.eigh(np.where(known, covariance, 0.0))
    root = vectors * np.sqrt(np.maximum(values, 0.0))[:, None]
    return np.where(known, root, np.nan)
