"""Draws of all parameters and random effects around the estimates of a fit.

What Gelman and Hill's ``sim`` and merTools' ``predictInterval`` have in R, with the
variance parameters drawn too. These are normal around their estimates with the inverse
of the exact Hessian for covariance, in the coordinates in which the fit was found
(entries of Lambda, log sigma, log dispersion; a standard deviation is the absolute
value of what is drawn). Given them

- of a linear model, beta and b are normal with Henderson's covariance, exactly
  (``estimate.effect_draws``);
- of one with correlated residuals likewise (``correlated_draws``);
- of a generalised model, beta is drawn with the variance parameters; the modes move
  with all of them to first order, and around them is the Gaussian at the mode.

Where the likelihood is far from quadratic (few groups, a variance next to zero) the
posterior that ``method="nested-laplace"`` finds is better.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._brief import brief
from jaxglmm._errors import NotApplicableError
from jaxglmm._pandas import pd
from jaxglmm.estimate.effect_draws import effects_given, noise_of_effects
from jaxglmm.estimate.mode_tangents import mode_tangents
from jaxglmm.fitting.components import parameters
from jaxglmm.fitting.degrees_of_freedom import satterthwaite_parts
from jaxglmm.fitting.degrees_of_freedom_blocks import parameter_covariance
from jaxglmm.fitting.estimates import Estimates
from jaxglmm.fitting.kinds import is_correlated, is_generalised
from jaxglmm.fitting.linear import lambdas, pack, per_term, roots
from jaxglmm.postestimation.prediction import correlated_draws
from jaxglmm.postestimation.prediction.rows_of_draws import RowsOfDraws
from jaxglmm.runtime.precision import double_precision
from jaxglmm.structure.factors import triangular

if TYPE_CHECKING:
    from jaxglmm.fitting.fitted_correlated import FittedCorrelated
    from jaxglmm.fitting.fitted_generalised import FittedGeneralised
    from jaxglmm.fitting.fitted_model import FittedModel

FLAT = 1e-9  # eigenvalues of a covariance, relative to the largest, that count as zero
CHUNK = 250  # draws of one call
KINDS = ("mean", "observation")


@brief
@dataclass(frozen=True)
class JointDraws:
    """n draws of (beta, b, variance parameters) of a fit.

    beta: (n, p); b: (n, J, q) a term; lam: (n, q, q) a term, Lambda with Sigma =
    sigma^2 Lambda Lambda'; sigma: (n,), ones in a generalised model; phi: (n, n_phi).
    """

    fit: Any
    beta: np.ndarray
    b: tuple[np.ndarray, ...]
    lam: tuple[np.ndarray, ...]
    sigma: np.ndarray
    phi: np.ndarray
    seed: Any

    @property
    def n(self) -> int:
        """Number of draws."""
        return len(self.beta)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A row a draw: coefficients, then variance parameters by their names."""
        names = list(self.fit.design.x_names)
        fixed = pd.DataFrame(self.beta, columns=names)
        return pd.concat([fixed, self.variances], axis=1)

    @cached_property
    def variances(self) -> pd.DataFrame:
        """A row a draw: standard deviations, correlations, sigma, dispersions."""
        fit = self.fit
        rows = []
        for k in range(self.n):
            own = self._estimates(k)
            found = parameters(fit.design, own, fit.is_linear)
            row = {p.label: p.value for p in found}
            if len(own.phi):
                found = fit.like(fit.design, own).dispersions
                if is_correlated(fit) and "sigma" not in found:
                    row.pop("sigma", None)  # it differs from row to row
                row |= found
            rows.append(row)
        return pd.DataFrame(rows)

    def _estimates(self, k: int) -> Estimates:
        """The k-th draw in the place of the estimates."""
        lam = [x[k] for x in self.lam]
        return replace(
            self.fit.estimates,
            beta=self.beta[k],
            b=tuple(x[k] for x in self.b),
            lam=lam,
            theta=pack(self.fit.design, lam),
            sigma=float(self.sigma[k]),
            phi=self.phi[k],
        )

    def ranef(self, label: str | None = None) -> np.ndarray:
        """(n, J, q) effects of a term, by its label ``"Subject"``.

        Raises:
            NotApplicableError: no such term, or several and no label.
        """
        labels = [t.label for t in self.fit.design.terms]
        if label is None and len(labels) == 1:
            return self.b[0]
        if not _arguments.is_among(label, labels):
            raise NotApplicableError(
                f"ranef({_arguments.shown(label)}): the model's random terms are "
                f"{', '.join(map(repr, labels)) or 'none'}"
            )
        return self.b[labels.index(label)]

    # Rows ----------------------------------------------------------------------------

    def predict(
        self,
        newdata: Any = None,
        re: str = "conditional",
        type: str = "response",
        new_levels: str = "sample",
        offset: Any = None,
    ) -> np.ndarray:
        """The mean of rows in each draw, (n, rows).

        Args:
            newdata: table; default the data of the fit.
            re: "conditional", "population", or random terms that count, "(1 | g)".
            type: "response" or "link".
            new_levels: "sample" draws the effects of levels that were not in the data
                from their distribution, one effect a level and draw; "zero"; "error".
            offset: of new rows, where the fit's was an array.
        """
        rows = RowsOfDraws(self, newdata, re, type, new_levels, offset)
        out = np.empty((self.n, rows.n))
        for here in rows.pieces():
            out[:, here] = rows.mean(here, type)
        return out

    def observations(
        self,
        newdata: Any = None,
        re: str = "conditional",
        new_levels: str = "sample",
        offset: Any = None,
        trials: Any = None,
    ) -> np.ndarray:
        """A new observation of each row in each draw, (n, rows); of binomials counts.

        Args:
            newdata: table; default the data of the fit.
            re: as for ``predict``.
            new_levels: as for ``predict``.
            offset: of new rows, where the fit's was an array.
            trials: number, column or array, of a binomial response.
        """
        rows = RowsOfDraws(self, newdata, re, "response", new_levels, offset, trials)
        out = np.empty((self.n, rows.n))
        for here in rows.pieces():
            out[:, here] = rows.observed(here)
        return out

    def intervals(
        self,
        newdata: Any = None,
        re: str = "conditional",
        *,
        of: str = "observation",
        level: float = 0.95,
        new_levels: str = "sample",
        offset: Any = None,
        trials: Any = None,
    ) -> pd.DataFrame:
        """Median and limits of each row, all uncertainty in them, as predictInterval's.

        Args:
            newdata: table; default the data of the fit.
            re: as for ``predict``.
            new_levels: as for ``predict``.
            offset: of new rows, where the fit's was an array.
            trials: as for ``observations``.
            of: "observation" (with the residual, or the family's noise) or "mean".
            level: coverage.

        Returns:
            A frame ``fit``, ``lower``, ``upper``, a row a row.
        """
        _arguments.choice("of", of, KINDS)
        _arguments.level(level)
        rows = RowsOfDraws(self, newdata, re, "response", new_levels, offset, trials)
        tails = [0.5, (1 - level) / 2, (1 + level) / 2]
        out = np.empty((3, rows.n))
        for here in rows.pieces():
            if of == "observation":
                one = rows.observed(here, together=False)
            else:
                one = rows.mean(here)
            out[:, here] = np.quantile(one, tails, axis=0)
        names = ("fit", "lower", "upper")
        return pd.DataFrame(dict(zip(names, out, strict=True)), index=rows.new.index)


# Drawing them ------------------------------------------------------------------------


@double_precision
def joint_draws(fit: FittedModel, n: int, seed: Any) -> JointDraws:
    """n draws around the estimates.

    Raises:
        NotApplicableError: no whole number, more numbers than memory holds, or a fit
            without a curvature.
    """
    n = _arguments.whole("n", n, 1, _arguments.DATASETS, error=NotApplicableError)
    size = fit.design.p + sum(t.n_levels * len(t.names) for t in fit.design.terms)
    _arguments.cells("n", n, size)
    if seed is None:  # one that the questions of rows can use again
        seed = np.random.SeedSequence().entropy
    rng = np.random.default_rng(_arguments.sequence(seed))
    own = _generalised if is_generalised(fit) else _linear
    if is_correlated(fit):
        own = _correlated
    return JointDraws(fit, *own(fit, n, rng), seed)


def _correlated(fit: FittedCorrelated, n: int, rng: np.random.Generator):
    return correlated_draws.correlated(
        fit, n, rng, _root(fit, parameter_covariance(fit))
    )


def _linear(fit: FittedModel, n: int, rng: np.random.Generator):
    engine, e = fit.engine, fit.estimates
    problem, theta = fit.working()
    fixed = engine.moments.fixed
    root = _root(fit, satterthwaite_parts(engine, e).A)
    there = np.append(theta, 2 * np.log(e.sigma / fixed.scale))
    psi = there + rng.standard_normal((n, root.shape[1])) @ root.T
    z = [rng.standard_normal((n, b.shape[0], 1, b.shape[-1])) for b in problem.B]
    e = rng.standard_normal((n, problem.p))
    found = []
    for k in range(0, n, CHUNK):  # of one length, so that one program serves every n
        own = [_of_chunk(x, k) for x in (psi[:, :-1], psi[:, -1], e, *z)]
        found.append(effects_given(problem, *own[:3], tuple(own[3:])))
    beta = np.concatenate([np.asarray(x) for x, _ in found])[:n]
    b = [np.concatenate(x)[:n] for x in zip(*(y for _, y in found), strict=True)]
    beta = fixed.beta(beta)
    effects = [
        fixed.scale * _effects(f, x) for f, x in zip(engine.factors, b, strict=True)
    ]
    sigma = fixed.scale * np.exp(psi[:, -1] / 2)
    lam = _lam(engine, psi[:, :-1])
    return beta, per_term(engine.factors, effects), lam, sigma, np.zeros((n, 0))


def _of_chunk(x: np.ndarray, start: int) -> np.ndarray:
    """The next ``CHUNK`` draws, the last one again where there are fewer."""
    own = x[start : start + CHUNK]
    return np.pad(own, [(0, CHUNK - len(own)), *[(0, 0)] * (x.ndim - 1)], mode="edge")


def _generalised(fit: FittedGeneralised, n: int, rng: np.random.Generator):
    engine, e = fit.engine, fit.estimates
    psi, u = fit.internal()
    root = fit.parameter_root
    if not np.isfinite(root).all():
        raise _without_curvature(fit)
    moved = rng.standard_normal((n, root.shape[1])) @ root.T
    held = engine.beta_covariance(root).diagonal() == 0
    change = moved[:, : engine.base.p] @ engine.R_inverse.T
    beta = e.beta + np.where(held, 0.0, change)
    effects = []
    if engine.factors:
        problem, theta = fit.working()
        z = tuple(rng.standard_normal((b.shape[0], n, b.shape[-1])) for b in problem.B)
        noise = noise_of_effects(problem, theta, z)
        tangents = mode_tangents(engine.base, psi, u)
        now = _modes(fit, psi, u)
        for f, mode, w, T in zip(engine.factors, now, noise, tangents, strict=True):
            own = mode + np.tensordot(moved, np.asarray(T), axes=1)
            own = own + np.moveaxis(np.asarray(w), 1, 0)[:, :, None]
            effects.append(_effects(f, own))
    drawn, p = psi + moved, engine.base.p
    lam = _lam(engine, drawn[:, p : p + engine.base.m])
    phi = np.asarray(engine.location.phi(drawn))
    return beta, per_term(engine.factors, effects), lam, np.ones(n), phi


def _modes(fit: FittedGeneralised, psi: np.ndarray, u: Any) -> list[np.ndarray]:
    """(q, 1, J) b = Lambda u, in internal coordinates."""
    theta = fit.engine.base.split(psi)[1]
    lam = lambdas(fit.engine.base, theta)
    pairs = zip(lam, u, strict=True)
    return [np.tensordot(x, np.asarray(v), axes=1) for x, v in pairs]


def _effects(factor: Any, internal: np.ndarray) -> np.ndarray:
    """(n, J, q) in the user's coordinates, from (n, q, 1, J) padded."""
    own = internal[:, :, 0, : factor.n_levels]
    return np.einsum("nqj,kq->njk", own, factor.T_inverse)


def _lam(engine: Any, theta: np.ndarray) -> tuple[np.ndarray, ...]:
    """(n, q, q) Lambda of each term in the user's coordinates, from (n, m)."""
    internal = lambdas(engine.base, theta)
    return tuple(triangular(x) for x in roots(engine.factors, internal))


def _root(fit: FittedModel, A: np.ndarray) -> np.ndarray:
    """(k, r) with root root' = A, directions without variance left out."""
    if not np.isfinite(A).all():
        raise _without_curvature(fit)
    values, vectors = np.linalg.eigh((A + A.T) / 2)
    keep = values > FLAT * np.abs(values).max(initial=0.0)
    return vectors[:, keep] * np.sqrt(values[keep])


def _without_curvature(fit: FittedModel) -> NotApplicableError:
    return NotApplicableError(
        "draws() needs the curvature of the likelihood, which is not finite here: "
        f"{fit.status}"
    )
