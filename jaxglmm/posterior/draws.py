"""Posterior: draws of a Bayesian fit with their names, and how far to trust them.

Draws have equal weight. Where they came from importance sampling, means and covariances
are those of the weighted proposals, which are more exact than those of the resampled
draws.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._brief import brief
from jaxglmm.fitting.coverage import conf_level_too
from jaxglmm.model import covariances
from jaxglmm.model.covariances import names
from jaxglmm.posterior.engine import Draws, PosteriorEngine
from jaxglmm.posterior.outcome import Outcome

if TYPE_CHECKING:
    import pandas as pd

    from jaxglmm.formula.design import RandomTerm


@brief
@dataclass(frozen=True)
class MomentsOfDraws:
    """Means and spreads in the user's coordinates.

    beta: (p,); beta_cov: (p, p); sd, corr: term's label -> (q,), (q, q); effects,
    effects_sd: label -> (J, q); dispersion: name -> number; more: label -> (r,).
    """

    beta: np.ndarray
    beta_cov: np.ndarray
    sd: dict[str, np.ndarray]
    corr: dict[str, np.ndarray]
    effects: dict[str, np.ndarray]
    effects_sd: dict[str, np.ndarray]
    dispersion: dict[str, float]
    more: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Posterior:
    """What is known after the data.

    Attributes:
        draws: S draws of equal weight (``Draws``); with several chains, one after
            another.
        names: of the coefficients; terms: random terms, without their rows.
        chains: number of chains; 1 for everything but NUTS.
        moments: means and covariances.
        method: how it was found, in words.
        log_evidence: log marginal likelihood of the data, None where the method has
            none; ``log_evidence_error`` its standard error.
        elbo: of variational Bayes.
        khat: Pareto k-hat of the importance weights; ess: their effective sample size.
        log_lik: (S,) log p(y | parameters), random effects integrated out.
        log_posterior: (S,) the same with the prior, in the engine's coordinates.
        sample_stats: name -> (chains, draws), of NUTS.
        facts: numbers of the computation.
    """

    names: tuple[str, ...]
    terms: tuple[RandomTerm, ...]
    draws: Draws
    chains: int
    moments: MomentsOfDraws
    method: str
    log_evidence: float | None = None
    log_evidence_error: float | None = None
    elbo: float | None = None
    khat: float | None = None
    ess: float | None = None
    log_lik: np.ndarray | None = None
    log_posterior: np.ndarray | None = None
    sample_stats: dict[str, np.ndarray] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def n_draws(self) -> int:
        """Number of draws in all."""
        return len(self.draws.x)

    @cached_property
    def parameters(self) -> dict[str, np.ndarray]:
        """Name -> (S,) draws of coefficients, sds, correlations, dispersion."""
        d = self.draws
        out = {name: d.beta[:, j] for j, name in enumerate(self.names)}
        for term in self.terms:
            label, columns = term.label, term.names
            own = covariances.of(term)
            sds = own.sd_names(columns, label)
            out |= dict(zip(sds, d.sd[label].T, strict=True))
            if label in d.more:
                more = own.correlation_names(columns, label)
                out |= dict(zip(more, d.more[label].T, strict=True))
            if label in d.corr:
                for i in range(len(columns)):
                    for j in range(i):
                        key = names.correlation(columns[i], columns[j], label)
                        out[key] = d.corr[label][:, i, j]
        return out | d.dispersion

    def frame(self) -> pd.DataFrame:
        """Draws as a table, one row a draw, one column a parameter."""
        import pandas as pd

        return pd.DataFrame(self.parameters)

    @conf_level_too
    def summary(self, level: float = 0.95) -> pd.DataFrame:
        """mean, sd and central interval of every parameter.

        With chains also rank-normalised ``ess_bulk``, ``ess_tail`` and ``rhat``.
        """
        import pandas as pd

        _arguments.level(level)
        tails = [(1 - level) / 2, (1 + level) / 2]
        rows = {}
        for name, x in self.parameters.items():
            low, high = np.quantile(x, tails)
            mean, sd = self._moments_of(name, x)
            rows[name] = {"mean": mean, "sd": sd, "lower": low, "upper": high}
            if self.chains > 1:
                rows[name] |= self._convergence(x)
        return pd.DataFrame.from_dict(rows, orient="index")

    def _moments_of(self, name: str, x: np.ndarray) -> tuple[float, float]:
        if name in self.names:
            j = self.names.index(name)
            sd = np.sqrt(self.moments.beta_cov[j, j])
            return float(self.moments.beta[j]), float(sd)
        return float(x.mean()), float(x.std(ddof=1)) if len(x) > 1 else np.nan

    def _convergence(self, x: np.ndarray) -> dict[str, float]:
        from jaxglmm.numerics import mcmc_diagnostics as chains

        own = x.reshape(self.chains, -1)
        return {
            "ess_bulk": chains.bulk_ess(own),
            "ess_tail": chains.tail_ess(own),
            "rhat": chains.rhat(own),
        }

    def effects(self, label: str) -> np.ndarray:
        """(S, J, q) draws of a term's random effects.

        Of a known covariance between levels: (S, J, 1), one for each of its levels.

        Raises:
            NotApplicableError: no term has that label, or the draws are not kept.
        """
        term, own = self._effects(label)
        return own if term.known is None else (own @ term.known.root.T)[:, 0, :, None]

    def by_column(self, label: str) -> np.ndarray:
        """The same as they meet the term's columns."""
        return self._effects(label)[1]

    def _effects(self, label: str) -> tuple[RandomTerm, np.ndarray]:
        from jaxglmm._errors import NotApplicableError

        found = [term for term in self.terms if term.label == label]
        if not found:
            known = ", ".join(repr(term.label) for term in self.terms) or "none"
            raise NotApplicableError(f"no random term is called {label!r}: {known}")
        if self.draws.effects is None:
            raise NotApplicableError(
                "draws of the random effects are not kept: there are too many of "
                "them. Ask for fewer draws: NestedLaplace(draws=500)"
            )
        return found[0], self.draws.effects[label]

    def __repr__(self) -> str:
        bits = [f"{self.n_draws} draws"]
        if self.chains > 1:
            bits.append(f"{self.chains} chains")
        if self.khat is not None:
            bits.append(f"k-hat {self.khat:.2f}")
        return f"<Posterior: {self.method}, {', '.join(bits)}>"


def posterior(engine: PosteriorEngine, out: Outcome, method: str) -> Posterior:
    """Outcome of a method to the user's names and units."""
    design = engine.design
    draws = _draws(engine, out)
    if out.raw is not None and out.weights is not None:
        raw = engine.draws(out.raw.x, out.raw.u)
        found = moments(raw, out.weights)
    else:
        found = moments(draws, np.full(len(draws.x), 1 / len(draws.x)))
    exact = out.facts.pop("moments", None)
    if exact is not None:  # of a Gaussian, known without draws
        B = engine.R_inverse
        found = _replace_beta(found, B @ exact[0], B @ exact[1] @ B.T)
    facts = {k: v for k, v in out.facts.items() if k != "y_effects"}
    return Posterior(
        tuple(design.x_names),
        tuple(term.take(slice(0, 0)) for term in design.terms),
        draws,
        out.chains,
        found,
        method,
        out.log_evidence,
        out.log_evidence_error,
        out.elbo,
        out.khat,
        out.ess,
        out.log_lik,
        None if out.log_prior is None else out.log_lik + out.log_prior,
        out.sample_stats,
        facts,
    )


def _draws(engine: PosteriorEngine, out: Outcome) -> Draws:
    draws = engine.draws(out.x, out.u)
    y = out.facts.get("y_effects")
    if y is None or out.u is None:
        return draws
    # effects belong to the node that they were drawn at
    from dataclasses import replace

    at_node = engine.draws(np.concatenate([out.x[:, : engine.design.p], y], 1), out.u)
    return replace(draws, effects=at_node.effects)


def moments(draws: Draws, w: np.ndarray) -> MomentsOfDraws:
    """Weighted means and covariances; w: (S,) summing to one."""
    beta = w @ draws.beta
    rest = draws.beta - beta
    effects, spread = {}, {}
    for label, b in (draws.effects or {}).items():
        mean = np.tensordot(w, b, axes=1)
        effects[label] = mean
        second = np.einsum("s,sjq,sjq->jq", w, b, b)
        # a difference of means: below zero by rounding where draws agree
        spread[label] = np.sqrt(np.maximum(second - mean**2, 0.0))
    return MomentsOfDraws(
        beta,
        (w[:, None] * rest).T @ rest,
        {k: w @ v for k, v in draws.sd.items()},
        {k: np.tensordot(w, v, axes=1) for k, v in draws.corr.items()},
        effects,
        spread,
        {k: float(w @ v) for k, v in draws.dispersion.items()},
        {k: w @ v for k, v in draws.more.items()},
    )


def _replace_beta(
    found: MomentsOfDraws, mean: np.ndarray, cov: np.ndarray
) -> MomentsOfDraws:
    from dataclasses import replace

    return replace(found, beta=mean, beta_cov=cov)
