"""Two linear predictors, and two dispersion parameters, against dense formulas.

The families are defined here, by their log densities alone. The twin is Laplace's
approximation with n x m matrices in the user's rows: mode, value, and what automatic
differentiation of these finds.
"""

from typing import ClassVar
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from doors import (
    GeneralisedProblem,
    Predictors,
    TermColumns,
    Unstructured,
    build_rows,
    gradients,
    integrator,
    laplace,
    row_layout,
    search_steps,
    working_model,
)
from doors import estimate_generalised as estimate
from doors import hessian as exact
from scipy import optimize

import jaxglmm as jg
from jaxglmm import NotApplicableError
from jaxglmm.model.families import AbstractFamily


def normal(y, mean, log_sd):
    return (
        -0.5 * jnp.log(2 * jnp.pi) - log_sd - 0.5 * ((y - mean) / jnp.exp(log_sd)) ** 2
    )


class LocationScale(AbstractFamily):
    name: ClassVar[str] = "location-scale"
    predictors: ClassVar[tuple[str, ...]] = ("mean", "log sd")

    def log_density(self, y, eta, phi, trials=1.0):
        return normal(y, eta[0], eta[1])

    def start(self, y, trials=None):
        return np.stack([y, np.full(len(y), np.log(np.std(y)))]), np.zeros(0)


class Fisher(LocationScale):
    """The same, which says its expected information."""

    name: ClassVar[str] = "fisher"

    def expected_block(self, eta, phi, trials=1.0):
        zero = jnp.zeros_like(eta[0])
        w = [[jnp.exp(-2 * eta[1]), zero], [zero, zero + 2.0]]
        return jnp.stack([jnp.stack(row) for row in w])


class ZeroInflated(AbstractFamily):
    """Counts that are zero for another reason with probability logit^-1 eta_1."""

    name: ClassVar[str] = "zero-inflated"
    default_link: ClassVar[str] = "log"
    predictors: ClassVar[tuple[str, ...]] = ("mean", "zero")
    other_links: ClassVar[tuple[str, ...]] = ("logit",)

    def log_density(self, y, eta, phi, trials=1.0):
        counted = y * eta[0] - jnp.exp(eta[0]) - jax.lax.lgamma(y + 1.0)
        counted = counted - jax.nn.softplus(eta[1])
        zero = jnp.logaddexp(eta[1] - jax.nn.softplus(eta[1]), counted)
        return jnp.where(y == 0, zero, counted)

    def start(self, y, trials=None):
        return np.stack([np.log(y + 0.5), np.full(len(y), -1.0)]), np.zeros(0)


class Contaminated(LocationScale):
    """One in five rows has an sd exp(phi) times as large."""

    name: ClassVar[str] = "contaminated"
    n_phi: ClassVar[int] = 1
    phi_names: ClassVar[tuple[str, ...]] = ("ratio",)

    def log_density(self, y, eta, phi, trials=1.0):
        wide = normal(y, eta[0], eta[1] + phi[0]) + jnp.log(0.2)
        return jnp.logaddexp(normal(y, eta[0], eta[1]) + jnp.log(0.8), wide)

    def start(self, y, trials=None):
        return super().start(y)[0], np.array([1.0])


class TwoDispersions(AbstractFamily):
    """One predictor; the residual sd, and how far the tails go, as phi."""

    name: ClassVar[str] = "two-dispersions"
    n_phi: ClassVar[int] = 2
    phi_names: ClassVar[tuple[str, ...]] = ("sigma", "ratio")

    def log_density(self, y, eta, phi, trials=1.0):
        wide = normal(y, eta, phi[0] + phi[1]) + jnp.log(0.2)
        return jnp.logaddexp(normal(y, eta, phi[0]) + jnp.log(0.8), wide)

    def start(self, y, trials=None):
        return np.array(y), np.array([np.log(np.std(y)), 1.0])


N, J = 96, 8


def random_terms(kind, g, h, x):
    one = np.ones((N, 1))
    slope = np.stack([np.ones(N), x], axis=1)
    return {
        "same": [
            TermColumns("g", g, one, J, Unstructured(1)),
            TermColumns("g", g, one, J, Unstructured(1), predictor=1),
        ],
        "slope": [
            TermColumns("g", g, slope, J, Unstructured(2)),
            TermColumns("g", g, one, J, Unstructured(1), predictor=1),
        ],
        "crossed": [
            TermColumns("g", g, one, J, Unstructured(1)),
            TermColumns("h", h, one, 6, Unstructured(1), predictor=1),
        ],
        "shared": [
            *(
                TermColumns("g", g, one, J, Unstructured(1)),
                TermColumns("g", g, one, J, Unstructured(1), predictor=1),
            ),
            TermColumns("h", h, one, 6, Unstructured(1), predictor=1),
        ],
        "nested": [
            TermColumns("g", g, one, J, Unstructured(1), predictor=1),
            TermColumns("top", g // 2, one, J // 2, Unstructured(1)),
        ],
        "mean": [TermColumns("g", g, one, J, Unstructured(1))],
        "none": [],
    }[kind]


def case(family, kind, seed=1):
    """Problem, rows, start and the dense twin's numbers: X, Z (both internal), y."""
    rng = np.random.default_rng(seed)
    g, h = rng.permutation(N) % J, rng.integers(0, 6, N)
    x, z = rng.normal(size=N), rng.normal(size=N)
    b, c = 0.7 * rng.normal(size=J), 0.5 * rng.normal(size=J)
    K = len(family.predictors)
    if isinstance(family, ZeroInflated):
        y = rng.poisson(np.exp(1.2 + 0.4 * x + b[g])).astype(float)
        y = np.where(rng.random(N) < 1 / (1 + np.exp(0.8 - c[g])), 0.0, y)
    else:
        sd = np.exp(-0.4 + 0.3 * z + c[g]) * np.where(rng.random(N) < 0.2, 3.0, 1.0)
        y = 1 + 0.5 * x + b[g] + sd * rng.normal(size=N)
    weights = np.where(np.arange(N) % 7 == 0, 2.0, 1.0)
    X = [np.stack([np.ones(N), x], 1), np.stack([np.ones(N), z], 1)][:K]
    offset = 0.1 * np.stack([z, x])[:K]
    terms = random_terms(kind, g, h, x)
    rows = build_rows(X if K > 1 else X[0], terms)
    eta, phi = family.start(y)
    columns = tuple(part.shape[1] for part in X)
    problem = GeneralisedProblem(
        rows.rows,
        rows.X,
        rows.place(y),
        rows.place(1.0),
        rows.place(weights),
        rows.place(offset if K > 1 else offset[0]),
        family,
        tuple(f.covariance for f in rows.factors),
        Predictors(family.predictors, columns) if K > 1 else Predictors(),
    )
    start = jnp.asarray(rows.place(eta)), jnp.asarray(phi)
    dense = Dense(family, y, weights, offset, *internal(X, terms, rows), rows)
    return jax.device_put(problem), start, dense


def internal(X, terms, rows):
    """X (K, n, p) and Z, a factor's (K, n, J, q), in the coordinates of the rows."""
    K, p, at = len(X), len(rows.R), 0
    wide = np.zeros((K, N, p))
    for k, part in enumerate(X):
        wide[k, :, at : at + part.shape[1]] = part
        at += part.shape[1]
    Z = []
    for factor in rows.factors:
        z = np.zeros((K, N, factor.n_levels, factor.q))
        for index, a, b in factor.spans:
            term = terms[index]
            z[term.predictor, np.arange(N), term.codes, a:b] = term.values
        Z.append(z @ factor.T_inverse)
    return wide @ np.linalg.inv(rows.R), Z


class Dense:
    def __init__(self, family, y, weights, offset, X, Z, rows):
        self.family, self.y, self.weights, self.offset = family, y, weights, offset
        self.X, self.Z, self.rows = X, Z, rows
        self.m = sum(f.covariance.m for f in rows.factors)
        self.look = jax.jit(jax.value_and_grad(self.h))
        self.curve = jax.jit(jax.hessian(self.h))
        self.score = jax.jit(jax.value_and_grad(self.value))

    def parts(self, psi):
        """beta, Z Lambda (K, n, effects), phi."""
        p = len(self.rows.R)
        theta, at, out = psi[p : p + self.m], 0, []
        for factor, z in zip(self.rows.factors, self.Z, strict=True):
            lam = jnp.zeros((factor.q, factor.q))
            for i, j in factor.covariance.entries:
                lam = lam.at[i, j].set(theta[at])
                at += 1
            out.append((z @ lam).reshape(*z.shape[:2], -1))
        return psi[:p], jnp.concatenate(out, axis=2), psi[p + self.m :]

    def h(self, u, psi):
        beta, ZL, phi = self.parts(psi)
        eta = self.offset + self.X @ beta + ZL @ u
        eta = eta[0] if len(self.family.predictors) == 1 else eta
        l = self.family.log_density(self.y, eta, phi)
        return -jnp.sum(self.weights * l) + 0.5 * u @ u

    def mode(self, psi):
        u = np.zeros(sum(z.shape[2] * z.shape[3] for z in self.Z))

        def look(v):
            return [np.asarray(x, float) for x in self.look(v, psi)]

        found = optimize.minimize(look, u, jac=True).x
        for _ in range(4):
            found = found - np.linalg.solve(self.curve(found, psi), look(found)[1])
        return found

    def value(self, psi, u):
        """-2 log-likelihood by Laplace; u: the mode, without its derivative."""
        curve = jax.hessian(self.h)
        for _ in range(2):
            u = u - jnp.linalg.solve(curve(u, psi), jax.grad(self.h)(u, psi))
        return 2 * self.h(u, psi) + jnp.linalg.slogdet(curve(u, psi))[1]


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def somewhere(problem, seed=3):
    rng = np.random.default_rng(seed)
    k = problem.p + problem.m + problem.family.n_phi
    psi = 0.3 * rng.normal(size=k)
    psi[problem.p : problem.p + problem.m] += 0.5
    return jnp.asarray(psi)


def table(quick, slow):
    """Cases by name; each compiles a dense twin, so most wait for the full suite."""
    some = [pytest.param(f, k, id=f"{f.name}-{k}") for f, k in quick]
    return some + [
        pytest.param(f, k, id=f"{f.name}-{k}", marks=pytest.mark.slow) for f, k in slow
    ]


CASES = table(
    [(ZeroInflated(), "shared"), (Contaminated(), "slope")],
    [
        (LocationScale(), "same"),
        (LocationScale(), "crossed"),
        (ZeroInflated(), "same"),
        (ZeroInflated(), "nested"),
        (Contaminated(), "crossed"),
        (TwoDispersions(), "mean"),
    ],
)


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_value_score_and_hessian(family, kind):
    problem, _, dense = case(family, kind)
    psi = somewhere(problem)
    at = jax.jit(laplace.laplace)(problem, psi, estimate.zeros(problem))
    u = dense.mode(psi)
    value, score = dense.score(psi, u)
    np.testing.assert_allclose(at.value, value, rtol=1e-10)
    np.testing.assert_allclose(at.score, score, rtol=1e-8, atol=1e-8)
    H = exact.hessian(integrator(), problem, psi, at.u)
    twin = jax.jit(jax.hessian(dense.value))(psi, u)
    np.testing.assert_allclose(H, twin, rtol=1e-7, atol=1e-7 * np.abs(twin).max())
    assert (np.linalg.eigvalsh(at.curvature) > -1e-8).all()


FITS = table(
    [(ZeroInflated(), "crossed"), (TwoDispersions(), "mean")],
    [
        (LocationScale(), "crossed"),
        (Fisher(), "same"),
        (Contaminated(), "shared"),
        (ZeroInflated(), "nested"),
    ],
)


@pytest.mark.parametrize(("family", "kind"), FITS)
def test_the_search_finds_the_maximum(family, kind):
    """From the family's start; no other maximum is better."""
    # with rows that may be wide, some data have two modes of the effects, and a mode
    # that is another one is no maximum of Laplace's approximation: these have one
    seed = 4 if isinstance(family, Contaminated) else 1
    problem, (eta, phi), dense = case(family, kind, seed)
    marginal = integrator()
    found = estimate.fit_compiled(marginal, problem, eta, phi, 1e-9, 200)
    assert int(found.status) == 0

    def loss(psi):
        f, g = dense.score(psi, dense.mode(psi))
        return float(f), np.asarray(g)

    f, g = loss(found.psi)
    np.testing.assert_allclose(found.criterion, f, rtol=1e-9)
    H = np.asarray(exact.hessian(marginal, problem, found.psi, found.u))
    free = np.abs(np.asarray(found.psi)) > 0
    inner = H[np.ix_(free, free)]
    assert (np.linalg.eigvalsh(inner) > 0).all()
    assert g[free] @ np.linalg.solve(inner, g[free]) < 1e-6
    p, m = problem.p, problem.m
    begin = np.concatenate([np.zeros(p), np.full(m, 0.5), phi])
    other = optimize.minimize(loss, begin, jac=True, options={"maxiter": 60})
    assert f < other.fun + 1e-5


def test_levels_of_unequal_size_and_the_working_model():
    """Rows that are not a block give the same, and so does their Gaussian neighbour."""
    psi, out = None, []
    for few in (row_layout.LARGEST_ROWS, 0):
        with mock.patch.object(row_layout, "LARGEST_ROWS", few):
            problem, _, _ = case(Contaminated(), "slope")
        psi = somewhere(problem) if psi is None else psi
        at = jax.jit(laplace.laplace)(problem, psi, estimate.zeros(problem))
        near = working_model.working(problem, psi, at.u)
        factor = near.system.factor(problem.lambdas(problem.split(psi)[1]))
        out.append((type(problem.rows), at.value, at.score, at.curvature, near.RR))
        out[-1] += (factor.log_det(),)
    assert out[0][0] is not out[1][0]
    for a, b in zip(out[0][1:], out[1][1:], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def test_quadrature_of_effects_in_both_predictors():
    """One node is Laplace's; many are the integral, and the score is its gradient."""
    problem, _, dense = case(ZeroInflated(), "same")
    psi, zero = somewhere(problem), estimate.zeros(problem)
    one, many = (integrator("observed", k) for k in (1, 15))
    assert many.refusal(problem) is None
    at = jax.jit(many.derivatives)(problem, psi, zero)
    beta, ZL, phi = dense.parts(psi)
    z = np.linspace(-9, 9, 181)  # the trapezoidal rule
    grid = np.stack(np.meshgrid(z, z)).reshape(2, -1)
    log_w = -0.5 * np.sum(grid**2, axis=0) - np.log(2 * np.pi / (z[1] - z[0]) ** 2)
    base = dense.offset + dense.X @ np.asarray(beta)
    Z = np.asarray(ZL).reshape(2, N, J, 2)
    total = 0.0
    for j in range(J):
        here = np.abs(Z[:, :, j]).sum(axis=(0, 2)) > 0
        eta = base[:, here, None] + Z[:, here, j] @ grid
        l = dense.family.log_density(dense.y[here, None], eta, phi)
        l = dense.weights[here] @ np.asarray(l) + log_w
        total += np.log(np.sum(np.exp(l - l.max()))) + l.max()
    np.testing.assert_allclose(at.value, -2 * total, rtol=1e-7)
    step = 1e-5 * np.eye(len(psi))
    value = jax.jit(many.value)
    slopes = [
        (value(problem, psi + d, zero) - value(problem, psi - d, zero)) / 2e-5
        for d in step
    ]
    np.testing.assert_allclose(at.score, slopes, rtol=1e-5, atol=1e-5)
    rough = jax.jit(one.value)(problem, psi, zero)
    assert 1e-6 < abs(float(rough) + 2 * total) < 1.0


@pytest.mark.parametrize("family", [LocationScale(), ZeroInflated(), Contaminated()])
def test_without_random_effects(family):
    problem, (eta, phi), dense = case(family, "none")
    marginal = integrator()
    found = estimate.fit_compiled(marginal, problem, eta, phi, 1e-10, 200)
    assert int(found.status) == 0

    def loss(psi):
        mean = dense.offset + dense.X @ psi[: problem.p]
        l = family.log_density(dense.y, mean, psi[problem.p :])
        return -2 * jnp.sum(dense.weights * l)

    np.testing.assert_allclose(found.criterion, loss(found.psi), rtol=1e-12)
    np.testing.assert_allclose(jax.grad(loss)(found.psi), 0.0, atol=1e-3)
    H = exact.hessian(marginal, problem, found.psi, found.u)
    np.testing.assert_allclose(H, jax.hessian(loss)(found.psi), rtol=1e-8, atol=1e-7)


def test_what_is_for_one_predictor_says_so():
    problem, _, _ = case(ZeroInflated(), "same")
    psi, zero = somewhere(problem), estimate.zeros(problem)
    with pytest.raises(NotApplicableError, match="one linear predictor"):
        integrator("expected").derivatives(problem, psi, zero)
    second = integrator(order=2)
    assert "one linear predictor" in second.refusal(problem)


def test_derivatives_of_a_function_of_several_variables():
    def f(x):
        return jnp.exp(x[0]) * jnp.sin(x[1]) * x[2] ** 2 + x[0] * x[2]

    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)))
    found = gradients(f, x)
    twin = [f, jax.grad(f), jax.hessian(f), jax.jacfwd(jax.hessian(f))]
    for own, of in zip(found, twin, strict=True):
        expected = jax.vmap(of, in_axes=1, out_axes=-1)(x)
        np.testing.assert_allclose(own, expected, rtol=1e-12, atol=1e-12)


def test_information_that_is_not_positive_is_bounded():
    """By its absolute value, or a diagonal above it: what is positive stays."""
    model = Predictors(("mean", "log sd"), (1, 1))
    rows = [[[2, 1], [1, 1]], [[1, 3], [3, 1]], [[0, 0], [0, 0]]]
    w = jnp.moveaxis(jnp.asarray(rows, float), 0, -1)
    assert model.below(w).tolist() == [False, True, False]
    bounded = model.bounded(w, None)
    expected = np.moveaxis([rows[0], [[3, 1], [1, 3]], rows[2]], 0, -1)
    np.testing.assert_allclose(bounded, expected, atol=1e-14)
    v = jnp.ones((2, 3))
    back = model.solve(bounded, model.apply(bounded, v))
    np.testing.assert_allclose(back, [[1.0, 1.0, 0.0]] * 2, rtol=1e-12)
    three = jnp.asarray([[1.0, 2, 0], [2, 1, 1], [0, 1, 5]])[..., None]
    above = Predictors(("a", "b", "c"), (1, 1, 1)).bounded(three, None)[..., 0]
    np.testing.assert_array_equal(above, np.diag([3.0, 4.0, 6.0]))


def test_a_formula_states_one_predictor():
    with pytest.raises(NotApplicableError, match="'mean', 'zero'"):
        jg.glmm("y ~ 1", {"y": [0, 1, 2]}, family=ZeroInflated)


def test_two_dispersion_parameters_by_a_formula():
    """One fit and many at once; each parameter has its name in the table."""
    rng = np.random.default_rng(5)
    g = np.arange(N) % J
    y = rng.normal(size=J)[g] + rng.normal(size=N) * np.where(rng.random(N) < 0.2, 3, 1)
    formula, data = "y ~ 1 + (1 | g)", {"y": y, "g": g}
    fit = jg.glmm(formula, data, family=TwoDispersions())
    assert fit.converged
    found = [fit.family.dispersion(fit.estimates.phi)[k] for k in ("sigma", "ratio")]
    responses = np.stack([y, y + 1], axis=1)
    fits = jg.fit_many(formula, data, responses=responses, family=TwoDispersions())
    np.testing.assert_allclose(fits.frame()[["sigma", "ratio"]], [found] * 2, rtol=1e-4)


def test_ranges_of_dispersion_parameters():
    class Ranges(TwoDispersions):
        phi_range: ClassVar[tuple] = ((-1.0, -np.inf), (1.0, 2.0))

    psi = jnp.asarray([5.0, -3.0, -4.0])
    assert search_steps.within(Ranges(), psi).tolist() == [5.0, -1.0, -4.0]
    both = search_steps.within(Ranges(), jnp.stack([psi, -psi], axis=1))
    assert both[:, 1].tolist() == [-5.0, 1.0, 2.0]


def test_the_links_of_the_predictors():
    names = [link.name for link in ZeroInflated().predictor_links]
    assert names == ["log", "logit"]
    assert ZeroInflated().is_unit_free
    assert np.array_equal(LocationScale().start(np.arange(3.0))[1], np.zeros(0))
