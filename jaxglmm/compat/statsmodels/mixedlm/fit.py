"""Ways to fit: the engine of ``jg.lmm``, and a Newton method for everything held fixed.

The common case is ``estimate.maximise``, compiled whole. What it does not know
(parameters held at a value, components of several columns with one variance, a start of
one's own) is fitted here by the same steps with the loop on the host: score and average
information over the elements of the covariance, by the chain rule in coordinates that
hold what is to be held. EM steps (monotone, after Liu and Rubin's ECME 1994), SciPy's
optimisers by name, and penalised fits stand beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxglmm import _status
from jaxglmm._errors import ModelError
from jaxglmm.compat.statsmodels.mixedlm.evaluate import LOG_2PI, Evaluator
from jaxglmm.compat.statsmodels.mixedlm.params import MixedLMParams, root
from jaxglmm.estimate import information
from jaxglmm.estimate.maximise import Maximise
from jaxglmm.fitting import linear as _engine
from jaxglmm.formula.design import Design
from jaxglmm.results.fit import Fit
from jaxglmm.runtime.precision import double_precision

NEAR_ZERO = 1e-3  # relative standard deviation that may as well be zero
INDIFFERENT = 1e-8  # of the criterion, relative to its size
HOPELESS = 1e12  # damping
OUTSIDE = 1e10  # of the objective, where SciPy's steps leave the covariances

SCIPY = {  # statsmodels' names
    "bfgs": "BFGS",
    "lbfgs": "L-BFGS-B",
    "cg": "CG",
    "nm": "Nelder-Mead",
    "powell": "Powell",
    "minimize": "BFGS",
    "basinhopping": "basinhopping",
}
OPTIONS = {  # of each: statsmodels' keyword -> SciPy's option
    "BFGS": {"gtol": "gtol", "maxiter": "maxiter", "eps": "eps", "disp": "disp"},
    "L-BFGS-B": {
        "gtol": "gtol",
        "ftol": "ftol",
        "maxiter": "maxiter",
        "eps": "eps",
        "maxcor": "maxcor",
        "maxls": "maxls",
    },
    "CG": {"gtol": "gtol", "maxiter": "maxiter", "eps": "eps", "disp": "disp"},
    "Nelder-Mead": {"ftol": "fatol", "maxiter": "maxiter", "disp": "disp"},
    "Powell": {"ftol": "ftol", "maxiter": "maxiter", "disp": "disp"},
    "basinhopping": {},
}
HOPS = 20  # of basin hopping


@dataclass(frozen=True)
class Found:
    """Relative covariances and how they were found.

    fit: the ``jg.Fit`` where the engine of ``jg.lmm`` made it; beta: fixed effects that
    are not those of generalised least squares (a penalised fit).
    """

    cov_re: np.ndarray
    vcomp: np.ndarray
    status: int
    steps: int
    decrement: float
    history: list = field(default_factory=list)
    fit: Fit | None = None
    beta: np.ndarray | None = None
    scale: float | None = None

    @property
    def converged(self) -> bool:
        """Whether the optimiser met its test."""
        return self.status == _status.CONVERGED


@double_precision
def by_engine(
    ev: Evaluator, design: Design, reml: bool, tol: float, max_steps: int
) -> Found:
    """The fit of ``jg.lmm``; ``design`` may have independent random effects."""
    if design is ev.design:
        engine = ev.engine.with_method(reml)
    else:
        engine = _engine.build(design, Maximise(reml))
    fitted, criterion = engine.fit(tol, max_steps)
    found = _engine.estimates(engine, design, fitted, criterion)
    cov_re, vcomp = np.zeros((ev.k_re, ev.k_re)), np.zeros(ev.k_vc)
    for lam, owner in zip(found.lam, ev.where.owner, strict=True):
        if owner < 0:
            cov_re = lam @ lam.T
        else:
            vcomp[owner] = lam[0, 0] ** 2
    numbers = {"evaluations": found.n_iter, "decrement": found.decrement, "tol": tol}
    fit = Fit(design, found, engine, {**numbers, "max_iter": max_steps})
    return Found(cov_re, vcomp, found.status, found.n_iter, found.decrement, [], fit)


# Coordinates that hold what is held ---------------------------------------------------


class Roots:
    """Entries of the root L and of the components' roots, some of them held.

    free_L (k, k), free_w (c,): what may move; pins: component -> variance, and "re" ->
    variance of the first random effect, in internal units of y squared, held whatever
    the residual variance; order: L is the root of cov_re[order][:, order].
    """

    def __init__(
        self, L, w, free_L, free_w, pins: dict | None = None, order: list | None = None
    ):
        self.L, self.w = np.array(L, float), np.array(w, float)
        self.pins = pins or {}
        k = len(self.L)
        self.order = list(range(k)) if order is None else list(order)
        self._place = [self.order.index(i) for i in range(k)]
        held = {p for p in self.pins if p != "re"}
        self.entries = [
            (i, j)
            for i in range(k)
            for j in range(i + 1)
            if free_L[i, j] and not ("re" in self.pins and (i, j) == (0, 0))
        ]
        self.components = [c for c in range(len(self.w)) if free_w[c] and c not in held]

    def start(self) -> np.ndarray:
        """The free entries."""
        entries = [self.L[i, j] for i, j in self.entries]
        return np.array(entries + [self.w[c] for c in self.components])

    def move(self, x: np.ndarray) -> None:
        """Start from x."""
        self.L, self.w = self.unpack(x, 0.0)

    def unpack(self, x: np.ndarray, s: float) -> tuple[np.ndarray, np.ndarray]:
        """L and w at x and log residual variance s."""
        L, w = self.L.copy(), self.w.copy()
        for value, (i, j) in zip(x, self.entries, strict=False):
            L[i, j] = value
        w[self.components] = x[len(self.entries) :]
        for pin, variance in self.pins.items():
            size = np.sqrt(variance) * np.exp(-s / 2)
            if pin == "re":
                L[0, 0] = size
            else:
                w[pin] = size
        return L, w

    def point(self, x: np.ndarray, s: float) -> tuple[np.ndarray, np.ndarray] | None:
        """Relative covariances."""
        L, w = self.unpack(x, s)
        back = np.ix_(self._place, self._place)
        return (L @ L.T)[back], w**2

    def jacobian(self, x: np.ndarray, s: float) -> np.ndarray:
        """(m, k + 1): the triangle and components by x and by s."""
        L, w = self.unpack(x, s)
        place, k = self._place, len(L)
        triangle = [(place[i], place[j]) for i in range(k) for j in range(i + 1)]
        columns = [self._column(triangle, L, a, b, w) for a, b in self.entries]
        for c in self.components:
            column = np.zeros(len(triangle) + len(w))
            column[len(triangle) + c] = 2 * w[c]
            columns.append(column)
        last = np.zeros(len(triangle) + len(w))
        for pin in self.pins:
            if pin == "re":
                last -= L[0, 0] / 2 * self._column(triangle, L, 0, 0, w)
            else:
                last[len(triangle) + pin] -= w[pin] ** 2
        return np.stack([*columns, last], axis=1)

    @staticmethod
    def _column(triangle, L, a: int, b: int, w) -> np.ndarray:
        """Change of the triangle as L[a, b] rises."""
        out = [(i == a) * L[j, b] + (j == a) * L[i, b] for i, j in triangle]
        return np.array([*out, *np.zeros(len(w))])

    def curvature(self, G: np.ndarray, g: np.ndarray) -> np.ndarray:
        """Second derivatives of the covariances, their positive part (see exact)."""
        size = len(self.entries) + len(self.components)
        out = np.zeros((size, size))
        if len(G):
            values, vectors = np.linalg.eigh(G[np.ix_(self.order, self.order)])
            half = (vectors * np.maximum(values, 0)) @ vectors.T
            for a, (i, j) in enumerate(self.entries):
                for b, (h, l) in enumerate(self.entries):
                    if j == l:
                        out[a, b] = 2 * half[i, h]
        for a, c in enumerate(self.components, len(self.entries)):
            out[a, a] = 2 * max(g[c], 0.0)
        return out

    def near_zero(self, x: np.ndarray, sizes: np.ndarray) -> bool:
        """Whether something that may move is next to zero."""
        return bool(self._zeros(x, sizes))

    def _zeros(self, x: np.ndarray, sizes: np.ndarray) -> list[int]:
        """Positions in x of diagonals and components next to zero."""
        k = len(self.L)
        size = {
            a: sizes[self.order[i]] for a, (i, j) in enumerate(self.entries) if i == j
        }
        for a, c in enumerate(self.components, len(self.entries)):
            size[a] = sizes[k + c]
        return [a for a, own in size.items() if abs(x[a]) * own < NEAR_ZERO]

    def rise(self, x: np.ndarray, G: np.ndarray, g: np.ndarray, sizes: np.ndarray):
        """Share of a step -> x, along the zero whose variance lowers d most by rising.

        G, g: derivatives of d by the covariances and the components. None where no
        variance at zero wants to rise.
        """
        k, best, found = len(self.L), 0.0, None
        for a in self._zeros(x, sizes):
            if a >= len(self.entries):
                c = self.components[a - len(self.entries)]
                slope = g[c] / sizes[k + c] ** 2
                places, direction = [a], np.array([1 / sizes[k + c]])
            else:
                slope, places, direction = self._column_slope(x, a, G, sizes)
            if slope < best - 1e-9:
                best, found = slope, (places, direction)
        if found is None:
            return None
        places, direction = found

        def moved(share: float) -> np.ndarray:
            out = x.copy()
            out[places] = np.sqrt(share) * direction
            return out

        return moved

    def _column_slope(self, x: np.ndarray, a: int, G: np.ndarray, sizes: np.ndarray):
        """The steepest fall of d as a column of L that is zero becomes something."""
        j = self.entries[a][1]
        places = [b for b, (_, l) in enumerate(self.entries) if l == j]
        column = self.unpack(x, 0.0)[0][:, j]
        of = sizes[[self.order[i] for i in range(len(self.L))]]
        if np.abs(column * of).max() >= NEAR_ZERO:  # then the gradient does not vanish
            return 0.0, [], np.zeros(0)
        rows = [self.entries[b][0] for b in places]
        scale = 1 / of[rows]
        G = G[np.ix_(self.order, self.order)][np.ix_(rows, rows)]
        values, vectors = np.linalg.eigh(G * np.outer(scale, scale))
        direction = vectors[:, 0] * scale
        if direction[rows.index(j)] < 0:
            direction = -direction
        return float(values[0]), places, direction

    def zeroed(self, x: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """x with diagonals next to zero at zero; sizes: of the columns of Z."""
        out = x.copy()
        for a, (i, j) in enumerate(self.entries):
            if i == j and abs(x[a]) * sizes[self.order[i]] < NEAR_ZERO:
                out[a] = 0.0
        for a, c in enumerate(self.components, len(self.entries)):
            if abs(x[a]) * sizes[len(self.L) + c] < NEAR_ZERO:
                out[a] = 0.0
        return out


class Elements:
    """Elements of the covariance itself (``use_sqrt=False``), some of them held."""

    def __init__(self, cov_re, vcomp, free_re, free_vc):
        self.cov_re, self.vcomp = np.array(cov_re, float), np.array(vcomp, float)
        k = len(self.cov_re)
        self.triangle = [(i, j) for i in range(k) for j in range(i + 1)]
        self.entries = [(i, j) for i, j in self.triangle if free_re[i, j]]
        self.components = [c for c in range(len(self.vcomp)) if free_vc[c]]

    def start(self) -> np.ndarray:
        """The free elements."""
        entries = [self.cov_re[i, j] for i, j in self.entries]
        return np.array(entries + [self.vcomp[c] for c in self.components])

    def move(self, x: np.ndarray) -> None:
        """Start from x."""
        found = self.point(x, 0.0)
        if found is not None:
            self.cov_re, self.vcomp = found

    def point(self, x: np.ndarray, s: float) -> tuple[np.ndarray, np.ndarray] | None:
        """Relative covariances; None where they are not positive semidefinite."""
        cov_re, vcomp = self.cov_re.copy(), self.vcomp.copy()
        for value, (i, j) in zip(x, self.entries, strict=False):
            cov_re[i, j] = cov_re[j, i] = value
        vcomp[self.components] = x[len(self.entries) :]
        if (vcomp < 0).any():
            return None
        if len(cov_re) and np.linalg.eigvalsh(cov_re)[0] < 0:
            return None
        return cov_re, vcomp

    def jacobian(self, x: np.ndarray, s: float) -> np.ndarray:
        """(m, k + 1): elements by x, and by s (not at all)."""
        places = [self.triangle.index(e) for e in self.entries]
        places += [len(self.triangle) + c for c in self.components]
        out = np.zeros((len(self.triangle) + len(self.vcomp), len(places) + 1))
        out[places, np.arange(len(places))] = 1.0
        return out

    def curvature(self, G: np.ndarray, g: np.ndarray) -> np.ndarray:
        """None: the covariances are linear in their elements."""
        size = len(self.entries) + len(self.components)
        return np.zeros((size, size))

    def near_zero(self, x: np.ndarray, sizes: np.ndarray) -> bool:
        """False: at zero the derivative over the variance itself does not vanish."""
        return False

    def zeroed(self, x: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """x with components next to zero at zero."""
        out = x.copy()
        for a, c in enumerate(self.components, len(self.entries)):
            if np.sqrt(abs(x[a])) * sizes[len(self.cov_re) + c] < NEAR_ZERO:
                out[a] = 0.0
        return out


def column_sizes(ev: Evaluator) -> np.ndarray:
    """(k_re + k_vc,) root mean squares of the columns of Z."""
    out = np.ones(ev.k_re + ev.k_vc)
    for term, owner in zip(ev.design.terms, ev.where.owner, strict=True):
        size = np.sqrt(np.mean(term.values**2, axis=0))
        if owner < 0:
            out[: ev.k_re] = size
        else:
            out[ev.k_re + owner] = max(size[0], 1e-300)
    return out


# Newton's method on the host ----------------------------------------------------------


@dataclass(frozen=True)
class Local:
    """The criterion and its derivatives over the elements of the covariance.

    natural, tv (m,): gradient, and the part of it that is quadratic in the residuals;
    info (m, m); r2, s2: sum of squares and residual variance.
    """

    value: float
    natural: np.ndarray
    tv: np.ndarray
    info: np.ndarray
    r2: float
    s2: float


def _local(ev: Evaluator, coordinates, x: np.ndarray, reml: bool) -> Local | None:
    """At x, whose last entry is log residual variance; None off the space."""
    here = coordinates.point(x[:-1], x[-1])
    if here is None:
        return None
    at, p = ev.slopes(*here), ev.p
    N = ev.n - p if reml else ev.n
    C = at.K[:p, :p]
    v = np.append(-np.linalg.solve(C, at.K[:p, p]), 1.0)
    r2, s2 = v @ at.K @ v, np.exp(x[-1])
    value = at.log_det + N * (LOG_2PI + x[-1]) + r2 / s2
    tv = np.einsum("i,aij,j->a", v, at.P, v) / s2
    natural = at.trace - tv
    if reml and p:
        value += np.linalg.slogdet(C)[1]
        inverse = np.linalg.inv(C)
        natural = natural - np.einsum("ij,aji->a", inverse, at.P[:, :p, :p])
    return Local(value, natural, tv, at.info / s2, r2, s2)


def _criterion(ev: Evaluator, coordinates, reml: bool):
    """x -> (d, gradient, curvature, scale); the last of x is log residual variance."""
    N = ev.n - ev.p if reml else ev.n
    triangle = ev.triangle

    def evaluate(x: np.ndarray):
        at = _local(ev, coordinates, x, reml)
        if at is None:
            return None
        J = coordinates.jacobian(x[:-1], x[-1])
        gradient = J.T @ at.natural
        gradient[-1] += N - at.r2 / at.s2
        H = J.T @ at.info @ J
        cross = J.T @ at.tv
        H[-1] += cross
        H[:, -1] += cross
        H[-1, -1] += at.r2 / at.s2
        D = 1 + np.diagonal(H)
        G = _as_matrix(at.natural, ev.k_re, triangle)
        H[:-1, :-1] += coordinates.curvature(G, at.natural[len(triangle) :])
        return at.value, gradient, H, D

    return evaluate


def _as_matrix(natural: np.ndarray, k: int, triangle) -> np.ndarray:
    """G (k, k) with d = tr(G dcov) from the derivatives by the triangle."""
    G = np.zeros((k, k))
    for g, (i, j) in zip(natural, triangle, strict=False):
        G[i, j] = G[j, i] = g if i == j else g / 2
    return G


def _off_zero(ev: Evaluator, coordinates, x: np.ndarray, reml: bool):
    """x with variances off zero where the criterion falls as they rise; None if none.

    Over a root the derivative vanishes at zero, whatever it is over the variance: an
    optimiser that has stepped on zero stays there.
    """
    sizes = column_sizes(ev)
    if not coordinates.near_zero(x[:-1], sizes):
        return None
    at = _local(ev, coordinates, x, reml)
    if at is None:
        return None
    G = _as_matrix(at.natural, ev.k_re, ev.triangle)
    rise = coordinates.rise(x[:-1], G, at.natural[len(ev.triangle) :], sizes)
    if rise is None:
        return None
    share = 1.0
    for _ in range(40):
        trial = np.append(rise(share), x[-1])
        there = _local(ev, coordinates, trial, reml)
        if there is not None and there.value < at.value - 1e-10:
            return trial
        share *= 0.5
    return None


def newton(
    evaluate: Callable[[np.ndarray], Any],
    x: np.ndarray,
    tol: float,
    max_steps: int,
    keep: Callable[[np.ndarray, float], None] | None = None,
) -> tuple[np.ndarray, float, float, int, int]:
    """Damped Newton as in ``numerics.newton``: x, value, decrement, steps, status."""
    first = evaluate(x)
    if first is None or not np.isfinite(first[0]):
        return x, np.nan, np.inf, 1, _status.NOT_FINITE
    best: Any = first
    trial = x
    mu, gain, last = 1e-2, np.inf, np.inf
    for step in range(1, max_steps + 1):
        found = best if step == 1 else evaluate(trial)
        value = np.inf if found is None or np.isnan(found[0]) else found[0]
        if value <= best[0] + 1e-9 + 1e-12 * abs(best[0]):
            mu = mu if step == 1 else mu * 0.1
            best, x = found, trial
            if keep is not None:
                keep(x, value)
        elif last < 10 * tol and mu <= 1e-2:  # the rest is lost in rounding
            return x, best[0], last, step, _status.CONVERGED
        else:
            mu = max(10 * mu, 0.1)
        value, g, H, D = best
        change = np.linalg.lstsq(H + mu * np.diag(D), g, rcond=None)[0]
        last, gain = gain, float(g @ change)
        ratio = min(1.0, gain / last) if np.isfinite(last) else 1.0
        if mu <= 1e-2 and gain < 1e-4 and gain * ratio < tol and step > 1:
            return x - change, value, gain, step, _status.CONVERGED
        if mu <= 1e-2 and gain < 1e-3 * tol:
            return x, value, gain, step, _status.CONVERGED
        if mu > HOPELESS:
            return x, value, gain, step, _status.STALLED
        trial = x - change
        last = gain
    return x, best[0], gain, max_steps, _status.MAX_STEPS


def held(ev: Evaluator, coordinates, reml: bool, tol: float, max_steps: int) -> Found:
    """Maximise over the coordinates that are free, from where they stand."""
    evaluate = _criterion(ev, coordinates, reml)
    x = coordinates.start()
    s = _log_scale(ev, coordinates.point(x, 0.0), reml)
    if getattr(coordinates, "pins", None):  # a pinned variance depends on it
        for _ in range(5):
            s = _log_scale(ev, coordinates.point(x, s), reml)
    history: list = []

    def keep(point: np.ndarray, value: float) -> None:
        history.append((point.copy(), -(value + ev.constant(reml)) / 2))

    x = np.append(x, s)
    steps = 0
    for _ in range(2 + len(x)):  # each round takes one more variance off zero
        x, value, decrement, more, status = newton(
            evaluate, x, 1e-2 * tol, max_steps, keep
        )
        steps += more
        lifted = None if steps >= max_steps else _off_zero(ev, coordinates, x, reml)
        if lifted is None:
            break
        x = lifted
    near = np.append(coordinates.zeroed(x[:-1], column_sizes(ev)), x[-1])
    if not np.array_equal(near, x):
        there = evaluate(near)
        if there is not None and there[0] <= value + INDIFFERENT * max(1, abs(value)):
            x = near
    point = coordinates.point(x[:-1], x[-1])
    assert point is not None
    unit = ev.engine.moments.fixed.scale**2
    cov_re, vcomp = point
    scale = float(np.exp(x[-1])) * unit
    return Found(cov_re, vcomp, status, steps, decrement, history, scale=scale)


def _log_scale(ev: Evaluator, point, reml: bool) -> float:
    if point is None:
        raise ModelError("the start of cov_re is not positive semidefinite")
    _, K, _ = ev.ground(*point)
    unit = ev.engine.moments.fixed.scale**2
    return float(np.log(ev.scale(K, ev.gls(K), reml) / unit))


# EM, SciPy, penalties -----------------------------------------------------------------


@double_precision
def em(
    ev: Evaluator, cov_re: np.ndarray, vcomp: np.ndarray, reml: bool, steps: int
) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """ECME steps: covariances by EM, beta and the residual variance by maximising.

    Each step raises the (restricted) likelihood: with S_f the covariance of factor f
    and J its levels, S_f <- sum over levels of (b b' + Cov(b | y)) / J. Returns the
    covariances and the log-likelihood before the first and after each step.
    """
    params = MixedLMParams.from_components(cov_re=cov_re, vcomp=vcomp)
    values = [ev.loglike(params, reml, True)]
    m = ev.engine.moments
    for _ in range(steps):
        _, K, effects = ev.ground(cov_re, vcomp)
        p = ev.p
        C = K[:p, :p]
        v = np.append(-np.linalg.solve(C, K[:p, p]), 1.0)
        N = ev.n - p if reml else ev.n
        s2 = float(v @ K @ v) / N
        around = information.conditional(ev.engine.problem, ev.theta(cov_re, vcomp))
        inverse = np.linalg.inv(C)
        total, levels = np.zeros_like(vcomp), np.zeros_like(vcomp)
        for factor, b, D, k in zip(m.factors, effects, around.D, around.K, strict=True):
            J = factor.n_levels
            mode = np.einsum("icg,c->ig", b[..., :J], v)
            S = mode @ mode.T / s2 + np.asarray(D)[..., :J].sum(-1)
            if reml and p:
                x = np.asarray(k)[..., :J]
                S = S + np.einsum("icg,cd,jdg->ij", x, inverse, x)
            S = factor.T_inverse @ S @ factor.T_inverse.T
            for term, a, z in factor.spans:
                owner = ev.where.owner[term]
                if owner < 0:
                    cov_re = S[a:z, a:z] / J
                else:
                    total[owner] += S[a, a]
                    levels[owner] += J
        vcomp = np.where(levels > 0, total / np.maximum(levels, 1), vcomp)
        params = MixedLMParams.from_components(cov_re=cov_re, vcomp=vcomp)
        values.append(ev.loglike(params, reml, True))
    return cov_re, vcomp, values


def by_scipy(
    ev: Evaluator,
    coordinates,
    reml: bool,
    methods: Sequence[str],
    options: dict[str, Any],
    keep_all: bool,
) -> tuple[Any, list, Any]:
    """SciPy's optimisers by name, one after the other until one converges.

    Over the coordinates, scale and fixed effects profiled, the objective divided by n
    as in statsmodels. Returns the coordinates there, points (with keep_all), and the
    record of SciPy.
    """
    from scipy.optimize import minimize

    constant = ev.constant(reml)

    def objective(x: np.ndarray):
        here = coordinates.point(x, 0.0)
        if here is None:
            return OUTSIDE, np.zeros_like(x)
        at = ev.slopes(*here)
        v = ev.direction(ev.gls(at.K))
        value = ev.value(at.log_det, at.K, v, reml) + constant / 2
        _, score = ev.score_from(at, v, reml)
        J = coordinates.jacobian(x, 0.0)[:, :-1]
        return -value / ev.n, -(J.T @ score) / ev.n

    x, path, record = coordinates.start(), [], None
    for name in methods:
        kind = SCIPY[name]
        given = {OPTIONS[kind][k]: v for k, v in options.items() if k in OPTIONS[kind]}
        if kind == "basinhopping":
            record = _hopped(objective, x)
            x = np.atleast_1d(record.x)
            break
        kept = (lambda z: path.append(z.copy())) if keep_all else None
        uses_gradient = kind not in ("Nelder-Mead", "Powell")
        record = minimize(
            objective if uses_gradient else lambda z: objective(z)[0],
            x,
            jac=uses_gradient or None,
            method=kind,
            tol=options.get("tol"),
            options=given,
            callback=kept,
        )
        x = np.atleast_1d(record.x)
        if record.success:
            break
    return x, path, record


def _hopped(objective: Callable, x: np.ndarray) -> Any:
    """SciPy's basin hopping, the same hops at every call."""
    from inspect import signature

    from scipy.optimize import basinhopping

    seed = "rng" if "rng" in signature(basinhopping).parameters else "seed"
    options: dict[str, Any] = {
        "niter": HOPS,
        "minimizer_kwargs": {"method": "BFGS", "jac": True},
        seed: np.random.default_rng(0),
    }
    return basinhopping(objective, x, **options)


def penalised(
    ev: Evaluator,
    start: MixedLMParams,
    coordinates: Roots,
    reml: bool,
    fe_pen: Any,
    cov_pen: Any,
    max_steps: int,
) -> Found:
    """Maximise the log-likelihood less penalties, over beta and covariances together.

    The scale is profiled. Penalties have ``func`` and ``deriv``: of the fixed effects,
    and of (cov_re1, its inverse).
    """
    from scipy.optimize import minimize

    fixed = ev.engine.moments.fixed
    p = ev.p
    back = fixed.scale * fixed.R_inverse  # d beta / d internal

    def split(x: np.ndarray):
        cov_re, vcomp = coordinates.point(x[p:], 0.0)  # type: ignore[misc]
        return fixed.beta(x[:p]), cov_re, vcomp

    def objective(x: np.ndarray):
        beta, cov_re, vcomp = split(x)
        at = ev.slopes(cov_re, vcomp)
        v = ev.direction(beta)
        value = ev.value(at.log_det, at.K, v, reml)
        fe, score = ev.score_from(at, v, reml)
        if fe_pen is not None:
            value -= fe_pen.func(beta)
            fe = fe - fe_pen.deriv(beta)
        if cov_pen is not None and ev.k_re:
            inverse = np.linalg.pinv(cov_re)
            value -= cov_pen.func(cov_re, inverse)
            score = score.copy()
            score[: len(ev.triangle)] -= cov_pen.deriv(cov_re, inverse)
        J = coordinates.jacobian(x[p:], 0.0)[:, :-1]
        gradient = np.concatenate([back.T @ fe, J.T @ score])
        return -value, -gradient

    x = np.append(
        (fixed.R @ (start.fe_params - fixed.beta0)) / fixed.scale, coordinates.start()
    )
    found = minimize(
        objective,
        x,
        jac=True,
        method="BFGS",
        options={"gtol": 1e-6, "maxiter": max_steps},
    )
    size = float(np.abs(found.jac).max())
    close = found.success or size < 1e-4 * max(1.0, abs(found.fun))
    beta, cov_re, vcomp = split(found.x)
    status = _status.CONVERGED if close else _status.MAX_STEPS
    return Found(cov_re, vcomp, status, int(found.nit), size, beta=beta)


def roots_from(
    params: MixedLMParams,
    free: MixedLMParams | None,
    pins: dict | None = None,
    order: list[int] | None = None,
) -> Roots:
    """Root coordinates at ``params``; zeros of ``free`` are held."""
    k, c = params.k_re, params.k_vc
    free_L = np.ones((k, k)) if free is None else np.asarray(free.cov_re)
    free_w = np.ones(c) if free is None else np.asarray(free.vcomp)
    covariance = params.cov_re
    if order is not None:
        covariance = covariance[np.ix_(order, order)]
        free_L = free_L[np.ix_(order, order)]
    half = root(covariance)
    return Roots(half, np.sqrt(params.vcomp), free_L, free_w, pins, order)


def elements_from(params: MixedLMParams, free: MixedLMParams | None) -> Elements:
    """The same for elements of the covariance."""
    k, c = params.k_re, params.k_vc
    free_re = np.ones((k, k)) if free is None else np.asarray(free.cov_re)
    free_vc = np.ones(c) if free is None else np.asarray(free.vcomp)
    return Elements(params.cov_re, params.vcomp, free_re, free_vc)
