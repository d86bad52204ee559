"""Certificates: how far an approximation can be trusted, with numbers and advice.

Every fit that is not exact has one. A check is a number, the bound it should keep and
what to do where it does not; the verdict is the worst of them:

    "trust"   every number keeps its bound
    "check"   one is near or over it: read the advice
    "refuse"  one is far over it: the answer is not the posterior (or the maximum)

What is compared. Optimisation: the Newton decrement, what is still to gain. Laplace's
method: its log-likelihood against adaptive quadrature (one grouping factor) at the
estimate, or against importance sampling of the random effects around their mode
(several factors). A Gaussian, a mixture or importance weights: Pareto k-hat and
effective sample size against the marginal posterior itself; and, parameter by
parameter, how much of it 90 per cent intervals hold. NUTS: R-hat, effective sample
sizes, divergences, energies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxglmm import _status
from jaxglmm.estimate.methods import NestedLaplace
from jaxglmm.fitting.diagnostics import widest
from jaxglmm.fitting.fitted_generalised import FittedGeneralised
from jaxglmm.fitting.fitted_model import FittedModel
from jaxglmm.integrate import curve_lanes as _lanes
from jaxglmm.integrate import laplace as _laplace
from jaxglmm.integrate.base import AbstractMarginal, Laplace
from jaxglmm.integrate.laplace_derivatives import predictor
from jaxglmm.integrate.marginals import integrator
from jaxglmm.numerics import mcmc_diagnostics as chains
from jaxglmm.numerics import pareto_smoothing as pareto
from jaxglmm.numerics.system import scale
from jaxglmm.posterior.evaluate import evaluate
from jaxglmm.posterior.fit import fit_posterior
from jaxglmm.posterior.fitted_posterior import FittedPosterior
from jaxglmm.posterior.mode import find_mode
from jaxglmm.runtime.compile import jit
from jaxglmm.runtime.precision import double_precision

LEVELS = ("trust", "check", "refuse")
SAMPLES = 2000  # of the random effects, where there are several factors
TRIED = 64  # draws at which Laplace is compared with quadrature
NODES = {1: 15, 2: 7, 3: 5}  # of the quadrature compared with, a column
ENDLESS = (_status.NO_RESIDUAL, _status.EXACT)  # the likelihood has no maximum
HELD = (0.85, 0.75)  # what 90 per cent intervals should hold at least
ADVICE = "for intervals of these parameters use method='nested-laplace'"


@dataclass(frozen=True)
class Check:
    """name, value, bound; level 0, 1 or 2 (``LEVELS``); text: what it says."""

    name: str
    value: float
    bound: float
    level: int
    text: str


@dataclass(frozen=True)
class Certificate:
    """The checks of a fit; it prints itself.

    verdict: "trust", "check" or "refuse"; advice: what to do next.
    """

    what: str
    checks: tuple[Check, ...]
    advice: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """The worst of the checks."""
        return LEVELS[max((c.level for c in self.checks), default=0)]

    def __getitem__(self, name: str) -> Check:
        return next(c for c in self.checks if c.name == name)

    def __str__(self) -> str:
        marks = ("ok   ", "check", "BAD  ")
        lines = [f"{self.what}: {self.verdict}"]
        lines += [f"  {marks[c.level]}  {c.text}" for c in self.checks]
        lines += [f"  -> {text}" for text in self.advice]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        import html

        return f"<pre>{html.escape(str(self))}</pre>"


def graded(name: str, value: float, good: float, bad: float, text: str) -> Check:
    """A number that should be small."""
    level = 0 if value <= good else 1 if value <= bad else 2
    if not np.isfinite(value):
        level = 2
    return Check(name, float(value), good, level, text)


# Maximum likelihood -----------------------------------------------------------------


def of_maximum(fit: FittedModel) -> Certificate:
    """A fit by Laplace's method or quadrature, or of a Gaussian, which is exact."""
    checks = [_optimum(fit)]
    advice = []
    if checks[0].level and fit.estimates.status in ENDLESS:
        advice.append("look at the response: no optimum is to be found by other means")
    elif checks[0].level:
        advice.append("raise max_iter, or simplify the random effects")
    if fit.family_name == "gaussian" and fit.link_name == "identity":
        return Certificate("Exact likelihood", tuple(checks), tuple(advice))
    if not fit.design.terms:
        return Certificate(
            "Likelihood without random effects", tuple(checks), tuple(advice)
        )
    assert isinstance(fit, FittedGeneralised)
    psi, u = fit.internal()
    gap = likelihood_gap(fit.engine.base, fit.marginal, psi, u)
    checks.append(gap.check)
    if gap.check.level:
        advice.append(gap.advice)
    if (wide := _wide(fit)) is not None:
        checks.append(wide)
        if wide.level:
            advice.append("take a prior on the standard deviations: method='map'")
    what = "Quadrature" if fit.marginal.nodes > 1 else "Laplace's approximation"
    return Certificate(what, tuple(checks), tuple(advice))


def _wide(fit: FittedGeneralised) -> Check | None:
    """Whether several maxima of a rough surface are to be feared."""
    found = widest(fit)
    if found is None or fit.marginal.beyond or found[0] <= found[1] / 2:
        return None
    sd, limit = found
    text = (
        f"largest standard deviation {sd:.3g} on the scale of the predictor: levels "
        "are all zeros or all ones, and Laplace's approximation is no guide there; "
        "its surface may have several maxima"
    )
    return graded("spread", sd, limit / 2, limit, text)


def _optimum(fit: FittedModel) -> Check:
    left = abs(float(fit.estimates.decrement))
    text = f"Newton decrement {left:.1e}: what the criterion could still gain"
    if fit.estimates.status in ENDLESS:
        text = _status.message(fit.estimates.status)
    value = left if fit.converged else np.inf
    return graded("decrement", value, 1e-4, 1e-2, text)


@dataclass(frozen=True)
class Gap:
    """How far a log-likelihood is from a better one."""

    check: Check
    advice: str


def likelihood_gap(
    problem: Any, marginal: AbstractMarginal, psi: np.ndarray, u: Any
) -> Gap:
    """At one point: against quadrature, or importance sampling of u."""
    if len(problem.sides) == 1 and problem.sides[0] <= 3:
        better = max(NODES[problem.sides[0]], 2 * marginal.nodes - 1)
        here, there = _two(problem, marginal, psi, u, better)
        gap = abs(there - here)
        text = (
            f"log-likelihood {here:.4f}; by {better}-node quadrature {there:.4f}, "
            f"{gap:.2g} away"
        )
        check = graded("likelihood", gap, 0.1, 1.0, text)
        return Gap(check, f"fit by quadrature: method=jg.AGQ({better})")
    here, corrected, khat, error = importance_corrected(problem, psi, u)
    gap = abs(corrected - here)
    text = (
        f"log-likelihood {here:.3f}; corrected by importance sampling {corrected:.3f} "
        f"(standard error {error:.2g}, k-hat {khat:.2f})"
    )
    if khat > 0.7:
        text += "; with that k-hat the correction is a lower bound at best"
        return Gap(
            Check("likelihood", gap, 0.5, 1, text),
            "too many random effects to correct at once: compare with "
            "method=jg.NUTS(density='joint')",
        )
    check = graded("likelihood", gap, 0.5, 2.0, text)
    return Gap(check, "sample the joint density: method=jg.NUTS(density='joint')")


@double_precision
def _two(
    problem: Any, marginal: AbstractMarginal, psi: np.ndarray, u: Any, nodes: int
) -> tuple[float, float]:
    """Log-likelihoods by the marginal and by quadrature."""
    other = integrator(nodes=nodes)
    here = -float(_value(marginal, problem, psi, u)) / 2
    return here, -float(_value(other, problem, psi, u)) / 2


def _value_of(marginal: AbstractMarginal, problem: Any, psi: Any, u: Any) -> Any:
    return marginal.value(problem, psi, u)


_value = jit(_value_of, static_argnums=0)


@double_precision
def importance_corrected(
    problem: Any, psi: np.ndarray, u: Any, seed: int = 0
) -> tuple[float, float, float, float]:
    """Laplace's log-likelihood, its correction, its k-hat and standard error.

    log of the mean of p(y, u) / q(u) over u from the Gaussian at the mode.
    """
    rng = np.random.default_rng(seed)
    z = tuple(
        rng.standard_normal((SAMPLES, q, 1, J))
        for q, J in zip(problem.sides, problem.rows.sizes, strict=True)
    )
    here, ratios = jax.device_get(_ratios(problem, psi, u, z))
    smoothed = pareto.smooth(ratios)
    # the mean of the smoothed ratios: their tail no longer rules it
    return (
        float(here),
        float(here + smoothed.log_mean),
        smoothed.khat,
        smoothed.error,
    )


def _ratios_of(problem: Any, psi: Any, u: Any, z: Any) -> Any:
    """log p(y, u) - log q(u) - Laplace's log-likelihood, for every z."""
    beta, theta, phi = problem.split(psi)
    lam = problem.lambdas(theta)
    r = _laplace.rows_at(problem, predictor(problem, beta, scale(lam, u)), phi)
    factor = problem.rows.weigh(r.w).factor(lam)

    def joint(u: Any) -> Any:
        l = _laplace.rows_at(problem, predictor(problem, beta, scale(lam, u)), phi).l
        return jnp.sum(l) - sum(jnp.sum(a * a) for a in u) / 2

    at_mode = joint(u)

    def one(z: Any) -> Any:
        moved = tuple(a + b for a, b in zip(u, factor.backward(z), strict=True))
        return joint(moved) + sum(jnp.sum(a * a) for a in z) / 2 - at_mode

    return at_mode - factor.log_det() / 2, jax.lax.map(one, z)


_ratios = jit(_ratios_of)
_psi = jit(lambda posterior, x: posterior.belief.psi(x))


# Posteriors -------------------------------------------------------------------------


def of_posterior(fit: FittedPosterior) -> Certificate:
    """A posterior, by whatever method."""
    kind = type(fit.bayes).__name__
    checks, advice = [_optimum(fit)], []
    if kind == "NUTS":
        checks = [] if fit.posterior.facts.get("decrement") is None else checks
        more, words = _chains(fit)
    elif kind == "VB":
        more, words = _variational(fit)
    else:
        more, words = _weights(fit)
    checks += more
    advice += words
    integrated = kind in ("MAP", "NestedLaplace") or (
        kind == "NUTS" and getattr(fit.bayes, "density", "") == "marginal"
    )
    exact = fit.family_name == "gaussian" and fit.link_name == "identity"
    if integrated and fit.design.terms and not exact:
        found = _integrator(fit)
        checks.append(found.check)
        if found.check.level:
            advice.append(found.advice)
    return Certificate(fit.method, tuple(checks), tuple(advice))


def _weights(fit: FittedPosterior) -> tuple[list[Check], list[str]]:
    """k-hat and effective sample size of the importance weights."""
    p = fit.posterior
    khat, ess = float(p.khat or 0.0), float(p.ess or 0.0)
    kind = type(fit.bayes).__name__
    of = "weights" if kind == "NestedLaplace" else "weights of the Gaussian's draws"
    checks = [
        graded("khat", khat, 0.5, 0.7, f"Pareto k-hat of the {of} {khat:.2f}"),
        Check(
            "ess",
            ess,
            400.0,
            0 if ess >= 400 else 1 if ess >= 100 else 2,
            f"effective sample size {ess:.0f} of {p.n_draws} draws",
        ),
    ]
    advice = []
    if kind == "MAP":
        weights = p.facts["importance_weights"]
        own, found = {n: (x, weights) for n, x in p.parameters.items()}, p.parameters
        checks.append(_held(own, found))
        if checks[-1].level:
            advice.append(ADVICE)
    if khat > 0.7:
        advice.append("the proposal misses part of the posterior: method='nuts'")
    elif kind == "MAP" and khat > 0.5 and ADVICE not in advice:
        advice.append("the posterior is skewed: method='nested-laplace' corrects it")
    if ess < 400:
        advice.append("ask for more draws, NestedLaplace(draws=20_000)")
    return checks, advice


def _variational(fit: FittedPosterior) -> tuple[list[Check], list[str]]:
    """How far means and sds are from those of importance sampling."""
    truth = fit_posterior(
        fit.design, fit.family, NestedLaplace(seed=fit.bayes.seed), fit.given_priors
    )
    a, b = fit.posterior.moments, truth.posterior.moments
    sd = np.sqrt(np.diag(b.beta_cov))
    shift = np.abs(a.beta - b.beta) / sd
    width = np.sqrt(np.diag(a.beta_cov)) / sd
    worst = float(np.max(np.abs(np.log(width)), initial=0.0))
    names = fit.design.x_names
    i, j = (int(np.argmax(v)) if len(v) else 0 for v in (shift, np.abs(np.log(width))))
    checks = [
        graded(
            "means",
            float(shift.max(initial=0.0)),
            0.1,
            0.3,
            f"means within {shift.max(initial=0.0):.2f} posterior sds of importance "
            f"sampling's (worst: {names[i] if names else '-'})",
        ),
        graded(
            "sds",
            worst,
            0.1,
            0.3,
            f"sds {width.min(initial=1.0):.2f} to {width.max(initial=1.0):.2f} times "
            f"importance sampling's (worst: {names[j] if names else '-'})",
        ),
    ]
    khat = float(truth.posterior.khat or 0.0)
    checks.append(
        graded("khat", khat, 0.5, 0.7, f"k-hat of what it is compared with {khat:.2f}")
    )
    better = {n: (x, None) for n, x in truth.posterior.parameters.items()}
    checks.append(_held(better, fit.posterior.parameters))
    advice = []
    if any(c.level for c in checks[:2]):
        advice.append("use method='nested-laplace', whose error the weights tell")
    elif checks[-1].level:
        advice.append(ADVICE)
    return checks, advice


def _held(
    truth: dict[str, tuple[np.ndarray, np.ndarray | None]],
    approximate: dict[str, np.ndarray],
) -> Check:
    """What 90 per cent intervals of a fit's draws hold of better ones, by parameter.

    truth: name -> draws and weights (None: equal ones).
    """
    held = {}
    for name, x in approximate.items():
        if np.ptp(x) == 0:  # known
            continue
        low, high = np.quantile(x, [0.05, 0.95])
        draws, weights = truth[name]
        inside = (draws >= low) & (draws <= high)
        held[name] = float(np.average(inside, weights=weights))
    worst = sorted(held, key=held.__getitem__)
    least = held[worst[0]] if worst else 0.9
    named = [n for n in worst if held[n] < HELD[0]][:3] or worst[:1]
    words = ", ".join(f"{held[n]:.2f} for {n}" for n in named)
    text = f"90% intervals hold {words or 0.9} of importance sampling's posterior"
    level = sum(least < bound for bound in HELD)
    return Check("intervals", least, HELD[0], level, text)


def _chains(fit: FittedPosterior) -> tuple[list[Check], list[str]]:
    p = fit.posterior
    C = p.chains
    own = {k: v.reshape(C, -1) for k, v in p.parameters.items() if np.ptp(v) > 0}
    rhat = max((chains.rhat(x) for x in own.values()), default=1.0)
    ess = min(
        (min(chains.bulk_ess(x), chains.tail_ess(x)) for x in own.values()),
        default=float(p.n_draws),
    )
    diverged = int(p.sample_stats["diverging"].sum())
    energy = float(chains.bfmi(p.sample_stats["energy"]).min())
    checks = [
        graded("rhat", rhat, 1.01, 1.05, f"largest R-hat {rhat:.3f}"),
        Check(
            "ess",
            float(ess),
            400.0,
            0 if ess >= 400 else 1 if ess >= 100 else 2,
            f"smallest effective sample size {ess:.0f} (bulk or tail)",
        ),
        graded("divergences", diverged, 0, 0.01 * p.n_draws, f"{diverged} divergences"),
        Check(
            "bfmi",
            energy,
            0.3,
            0 if energy >= 0.3 else 1,
            f"energy fraction of missing information {energy:.2f} (smallest chain)",
        ),
    ]
    advice = []
    if rhat > 1.01 or ess < 400:
        advice.append("ask for more draws or a longer warmup")
    if diverged:
        advice.append("raise target_accept, or give the variances tighter priors")
    return checks, advice


def _integrator(fit: FittedPosterior) -> Gap:
    """Laplace or quadrature against finer quadrature, over draws of the posterior.

    What counts is how much the error varies: a constant one cancels. In units of the
    posterior: the sd of the difference of log-likelihoods, and how far it moves means.
    """
    engine = fit.density
    problem = engine.posterior.problem
    nodes = fit.posterior.facts.get("nodes", 1)
    if not _lanes.suits(problem):
        return _joint_gap(fit)
    better = max(NODES[problem.sides[0]], 2 * nodes - 1)
    here, there = _over_draws(fit, nodes), _over_draws(fit, better)
    change = there - here
    change = change - change.mean()
    x = _chosen(fit)
    shift = np.abs(np.cov(x.T, change)[-1, :-1]) / x.std(axis=0, ddof=1)
    worst = float(shift.max())
    by = "Laplace" if nodes == 1 else f"{nodes}-node quadrature"
    text = (
        f"{by} against {better}-node quadrature: means would move by up to "
        f"{worst:.2f} posterior sds"
    )
    check = graded("integrator", worst, 0.1, 0.5, text)
    return Gap(check, f"integrate by quadrature: nodes={better}")


def _chosen(fit: FittedPosterior) -> np.ndarray:
    """A few draws, evenly spaced."""
    x = fit.posterior.draws.x
    return x[np.linspace(0, len(x) - 1, min(TRIED, len(x))).astype(int)]


@double_precision
def _over_draws(fit: FittedPosterior, nodes: int) -> np.ndarray:
    engine = fit.density
    _, mode = find_mode(engine, fit.bayes)
    marginal = integrator(nodes=nodes)
    found = evaluate(engine, marginal, mode, _chosen(fit), 0, steps=3, keep=False)
    return found.log_lik


@double_precision
def _joint_gap(fit: FittedPosterior) -> Gap:
    """Several factors: importance sampling of u at the posterior mean."""
    from jaxglmm.integrate.working_model import mode_at

    posterior = fit.density.posterior
    problem = posterior.problem
    x = fit.posterior.draws.x.mean(axis=0)
    psi = np.asarray(_psi(posterior, x))
    u = mode_at(problem, psi)
    return likelihood_gap(problem, Laplace(), psi, u)
