"""Where a new observation will lie: quantiles of its predictive distribution.

Given the linear predictor, y has the family's distribution; the predictor is normal,
uncertain or varying by level, with mean eta and standard deviation s. Its distribution
function F(y) = E F(y; h(eta + s Z)) is a one-dimensional mean (``averages``), and is
inverted by bracketing: over the integers for counts, elsewhere on a scale that covers
the support. A family without a distribution function is drawn from instead, with a
fixed seed. Dispersion parameters count as known.

The inversion is our own: ``scipy.optimize.elementwise`` came with SciPy 1.15, later
than the oldest that is served, and knows no whole numbers.
"""

from __future__ import annotations

import numpy as np

from jaxglmm._errors import NotApplicableError
from jaxglmm.model.families import AbstractFamily
from jaxglmm.postestimation.prediction import averages

DRAWS = 10_000
SEED = 20170913
AT_ONCE = 400_000  # evaluations of a distribution function in one batch
REACH = 7.5  # standard deviations of the predictor
FINEST = 7e-3  # step of the rule: quantiles to a share of it of s at the worst
DOUBLINGS = 1100  # of a bracket: the range of floating point
SCORE = 1e-9  # of a quantile, in standard normal units


def limits(
    family: AbstractFamily,
    phi: np.ndarray,
    eta: np.ndarray,
    sd: np.ndarray,
    trials: np.ndarray,
    level: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Central limits of a new observation, (n,) each; NaN where eta or sd is.

    Args:
        family: of the response.
        phi: (n_phi,) its dispersion.
        eta: (n,) means of the linear predictor.
        sd: (n,) its standard deviations.
        trials: (n,) numbers of trials; ones for a family without.
        level: probability of [lower, upper]; of a count at least that.
    """
    rows, back = np.unique(
        np.column_stack([eta, sd, trials]), axis=0, return_inverse=True
    )
    out = np.full((2, len(rows)), np.nan)
    known = np.flatnonzero(np.isfinite(rows).all(axis=1))
    has_cdf = type(family).cdf is not AbstractFamily.cdf
    one_batch = _by_inversion if has_cdf else _by_simulation
    for here, z, w in _batches(family, phi, rows, known, has_cdf):
        tails = (1 - level) / 2, (1 + level) / 2
        out[:, here] = one_batch(family, phi, rows[here], z, w, tails)
    return out[0, back.ravel()], out[1, back.ravel()]


def _batches(family, phi, rows, known, has_cdf):
    """Rows of like step: (positions, nodes, weights), with few numbers at once."""
    if not has_cdf:
        size = max(1, AT_ONCE // DRAWS)
        rng = np.random.default_rng(SEED)
        z = rng.standard_normal(DRAWS)
        for begin in range(0, len(known), size):
            yield known[begin : begin + size], z, np.full(DRAWS, 1 / DRAWS)
        return
    steps = _steps(family, phi, rows[known])
    order = np.argsort(steps, kind="stable")
    begin = 0
    while begin < len(known):
        z, w = averages.nodes(float(steps[order[begin]]), REACH)
        end = begin + max(1, AT_ONCE // len(z))
        end = min(end, int(np.searchsorted(steps[order], 2 * steps[order[begin]])))
        end = max(end, begin + 1)
        yield known[order[begin:end]], z, w
        begin = end


def _steps(family: AbstractFamily, phi, rows: np.ndarray) -> np.ndarray:
    """Step of the rule: F as a function of Z is as wide as the noise is against s.

    Where the noise is narrowest, within two standard deviations. Where predictors
    without a mean are in reach, F has an edge, and the finest step is taken.
    """
    eta, sd, trials = rows.T
    ratio, edge = np.zeros(len(eta)), np.zeros(len(eta), bool)
    for shift in (-REACH, -2.0, 0.0, 2.0, REACH):
        at = eta + shift * sd
        edge |= ~_has_mean(
            family, phi, np.asarray(family.parameters(at), float), trials
        )
        if abs(shift) <= 2:
            with np.errstate(all="ignore"):
                change = np.abs(_size(family, trials) * averages.slope(family, at))
                here = sd * change / _noise(family, phi, at, trials)
            ratio = np.fmax(ratio, here)
    step = np.clip(0.5 / np.sqrt(1 + ratio**2), FINEST, 0.5)
    return np.where(edge | ~np.isfinite(ratio), FINEST, step)


def _noise(family: AbstractFamily, phi, eta, trials) -> np.ndarray:
    """Standard deviation of y given its predictor; NaN where the family is silent."""
    mu = np.asarray(family.parameters(eta), float)
    try:
        with np.errstate(all="ignore"):
            return np.sqrt(np.asarray(family.variance(mu, phi, trials), float))
    except NotApplicableError:
        return np.full(len(eta), np.nan)


def _size(family: AbstractFamily, trials: np.ndarray) -> np.ndarray:
    binomial = family.family_kind == "binomial"
    return trials if binomial else np.ones(len(trials))


def _by_inversion(family, phi, rows, z, w, tails) -> np.ndarray:
    eta, sd, trials = rows.T
    mu = np.asarray(family.parameters(eta[:, None] + sd[:, None] * z), float)
    weights, centre = _allowed(family, phi, mu, trials, w)
    some = weights.any(axis=1)
    if not some.all():
        out = np.full((2, len(rows)), np.nan)
        if some.any():
            out[:, some] = _by_inversion(family, phi, rows[some], z, w, tails)
        return out

    def distribution(y: np.ndarray, where: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            each = family.cdf(y[:, None], mu[where], phi, trials[where, None])
        each = np.nan_to_num(np.asarray(each, float), nan=0.0)
        return np.einsum("ik,ik->i", each, weights[where])

    if family.discrete:
        start = np.maximum(np.ceil(centre * _size(family, trials)), 1.0)
        binomial = family.family_kind == "binomial"
        most = trials if binomial else np.full(len(eta), np.inf)
        found = [_invert_counts(distribution, start, most, p) for p in tails]
    else:
        wide = _noise(family, phi, eta, trials)
        wide = wide + np.abs(averages.slope(family, eta)) * sd
        found = [_invert(distribution, centre, wide, p) for p in tails]
        found = [
            _at_atoms(family, phi, rows, mu, weights, y, p)
            for y, p in zip(found, tails, strict=True)
        ]
    return np.array(found)


def _at_atoms(family, phi, rows, mu, weights, y, p: float) -> np.ndarray:
    """Quantiles y, those exact that fall on a value with a probability of its own."""
    trials = rows[:, 2:]
    for atom in family.atoms:
        value = np.float64(atom)
        with np.errstate(all="ignore"):
            ends = [f(value, mu, phi, trials) for f in (family.below, family.cdf)]
        low, high = (np.sum(np.nan_to_num(end) * weights, axis=1) for end in ends)
        y = np.where((low < p) & (p <= high), atom, y)
    return y


def _allowed(family, phi, mu, trials, w) -> tuple[np.ndarray, np.ndarray]:
    """Weights of the nodes, row by row, and a mean to start from.

    Predictors for which the link has no mean are left out: with the inverse link a
    normal predictor may be negative, and what is said of y is given that it is not.
    """
    weights = w * _has_mean(family, phi, mu, trials[:, None])
    total = weights.sum(axis=1, keepdims=True)
    weights = weights / np.where(total > 0, total, 1.0)
    median = np.argmax(np.cumsum(weights, axis=1) >= 0.5, axis=1)
    return weights, np.clip(mu[np.arange(len(mu)), median], -1e300, 1e300)


def _has_mean(family, phi, mu: np.ndarray, trials) -> np.ndarray:
    """Whether these means are some of the family's: its distribution says so."""
    with np.errstate(all="ignore"):
        F = np.asarray(family.cdf(np.float64(family.padding), mu, phi, trials), float)
    return np.isfinite(F) | (mu == np.inf)


def _invert_counts(distribution, start, most, p: float) -> np.ndarray:
    """Smallest count y with F(y) >= p, at most ``most``."""
    n = len(start)
    low, high = np.full(n, -1.0), np.minimum(start, most)
    active = np.arange(n)
    for _ in range(DOUBLINGS):
        short = (distribution(high[active], active) < p) & (high[active] < most[active])
        active = active[short]
        if not len(active):
            break
        low[active] = high[active]
        high[active] = np.minimum(2 * high[active], most[active])
    active = np.flatnonzero(high - low > np.maximum(1.0, 1e-12 * high))
    while len(active):
        middle = np.floor((low[active] + high[active]) / 2)
        enough = distribution(middle, active) >= p
        high[active] = np.where(enough, middle, high[active])
        low[active] = np.where(enough, low[active], middle)
        gap = high[active] - low[active]
        active = active[gap > np.maximum(1.0, 1e-12 * high[active])]
    return high


def _invert(distribution, centre, wide, p: float) -> np.ndarray:
    """y with F(y) = p: a bracket, then regula falsi in normal scores (Illinois)."""
    from scipy import special

    to_y, to_t = _scale(distribution, len(centre))
    target = special.ndtri(p)

    def miss(t: np.ndarray, where: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            # its logarithms are wanted, on both sides
            F = np.clip(distribution(to_y(t), where), 1e-300, 1 - 1e-16)
        return special.ndtri(F) - target

    every = np.arange(len(centre))
    t = to_t(centre)
    g = miss(t, every)
    low, high, at_low, at_high = t.copy(), t.copy(), g.copy(), g.copy()
    width = np.full(len(t), 0.5)
    if to_y is _same:
        usable = np.isfinite(wide) & (wide > 0)
        width = np.where(usable, wide, np.maximum(np.abs(t), 1.0))
    active = every
    for _ in range(DOUBLINGS):
        active = active[(at_low[active] > 0) | (at_high[active] < 0)]
        if not len(active):
            break
        down = at_low[active] > 0
        here = np.where(down, low[active] - width[active], high[active] + width[active])
        found = miss(here, active)
        _move(active[down], here[down], found[down], low, at_low, high, at_high)
        _move(active[~down], here[~down], found[~down], high, at_high, low, at_low)
        width[active] *= 2
    with np.errstate(over="ignore"):
        return to_y(_illinois(miss, low, high, at_low, at_high))


def _move(rows, t, g, end, at_end, other, at_other) -> None:
    """Shift a bracket outwards: the old end becomes the other one."""
    other[rows], at_other[rows] = end[rows], at_end[rows]
    end[rows], at_end[rows] = t, g


def _illinois(miss, low, high, at_low, at_high) -> np.ndarray:
    """Roots in brackets; where it is slow, halves."""
    best = np.where(np.abs(at_low) < np.abs(at_high), low, high)
    active = np.flatnonzero((at_low < 0) & (at_high > 0))
    side = np.zeros(len(low))
    for step in range(200):
        if not len(active):
            break
        a, b, fa, fb = low[active], high[active], at_low[active], at_high[active]
        t = (a + b) / 2 if step % 4 == 3 else (a * fb - b * fa) / (fb - fa)
        t = np.where((t > a) & (t < b), t, (a + b) / 2)
        g = miss(t, active)
        best[active] = t
        up = g > 0
        # an end that stays twice counts half, so that both come closer
        at_low[active] = np.where(up, np.where(side[active] > 0, fa / 2, fa), g)
        at_high[active] = np.where(up, g, np.where(side[active] < 0, fb / 2, fb))
        high[active], low[active] = np.where(up, t, b), np.where(up, a, t)
        side[active] = np.where(up, 1.0, -1.0)
        narrow = high[active] - low[active] <= 1e-12 * np.maximum(np.abs(t), 1e-12)
        active = active[(np.abs(g) > SCORE) & ~narrow]
    return best


def _same(t: np.ndarray) -> np.ndarray:
    return t


def _scale(distribution, n: int):
    """A map of the real line onto the support, and back: what F(0) and F(1) say."""
    from scipy import special

    every = np.arange(n)
    if distribution(np.zeros(n), every).any():
        return _same, _same
    # nothing is above one: proportions
    if (distribution(np.ones(n), every) >= 1 - 1e-12).all():
        return special.expit, special.logit
    return np.exp, np.log


def _by_simulation(family, phi, rows, z, w, tails) -> np.ndarray:
    rng = np.random.default_rng(SEED)
    eta, sd, trials = rows.T
    mu = np.asarray(family.parameters(eta[:, None] + sd[:, None] * z), float)
    m = np.broadcast_to(trials[:, None], mu.shape)
    y = family.simulate(rng, mu, phi, m)
    how = "inverted_cdf" if family.discrete else "linear"
    return np.quantile(y, tails, axis=1, method=how)
