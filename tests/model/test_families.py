"""Densities and derivatives against sixty digits, SciPy and quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from doors import AbstractFamily, filter_jit
from model import decimals
from scipy import stats

import jaxglmm as jg
from jaxglmm import ModelError
from jaxglmm.model.families import FAMILIES, family_from, nested_derivatives

COUNTS = (0.0, 1.0, 7.0, 1e4)
POSITIVE = (1e-8, 0.3, 40.0)
SHARES = (1e-9, 0.2, 1 - 1e-9)
REAL = (-3.0, 0.0, 500.0)

# family, the same in decimals, responses, log dispersions, trials, links
CASES = {
    "binomial": (jg.Binomial, decimals.binomial, (0.0, 3.0, 12.0), (), 12.0),
    "bernoulli": (jg.Bernoulli, decimals.binomial, (0.0, 1.0), (), 1.0),
    "poisson": (jg.Poisson, decimals.poisson, COUNTS, (), 1.0),
    "nbinom2": (jg.NegativeBinomial, decimals.nbinom2, COUNTS, (-3, 0.4, 9, 25), 1.0),
    "nbinom1": (
        lambda link: jg.NegativeBinomial(link, kind=1),
        decimals.nbinom1,
        COUNTS,
        (-25, -9, 0.4, 3),
        1.0,
    ),
    "gamma": (jg.Gamma, decimals.gamma, POSITIVE, (-9, 0.4, 3), 1.0),
    "inversegaussian": (
        jg.InverseGaussian,
        decimals.inversegaussian,
        POSITIVE,
        (-6, 0.4, 3),
        1.0,
    ),
    "beta": (jg.Beta, decimals.beta, SHARES, (-3, 0.4, 9), 1.0),
    "betabinomial": (
        jg.BetaBinomial,
        decimals.betabinomial,
        (0.0, 3.0, 12.0),
        (-3, 0.4, 9, 25),
        12.0,
    ),
    "gaussian": (jg.Gaussian, decimals.gaussian, REAL, (-2, 3), 1.0),
    "student": (
        lambda link: jg.StudentT(link, df=3.5),
        decimals.student(3.5),
        REAL,
        (-2, 3),
        1.0,
    ),
}
FAR = (-700.0, -30.0, -3.0, -0.4, 0.3, 2.5, 30.0, 700.0)
LOG = (-700.0, -30.0, -3.0, -0.4, 0.3, 2.5, 9.2, 30.0)
MIDDLE = (-30.0, -3.0, -0.4, 0.3, 2.5, 4.0)
PLUS = (1e-3, 0.3, 2.5, 30.0)
LINKS = {
    "binomial": {
        "logit": FAR,
        "probit": FAR,
        "cloglog": MIDDLE,
        "cauchit": FAR,
        "log": (-30.0, -2.0, -1e-3),
        "identity": (1e-3, 0.3, 0.99),
    },
    "bernoulli": {"logit": FAR, "cloglog": (-700.0, *MIDDLE)},
    "poisson": {"log": LOG, "sqrt": (-2.0, 0.3, 30.0), "identity": PLUS},
    "nbinom2": {"log": LOG, "sqrt": (0.3, 30.0), "identity": PLUS},
    "nbinom1": {"log": LOG[1:], "sqrt": (0.3, 30.0), "identity": PLUS},
    "gamma": {"log": (-30.0, *LOG[2:]), "inverse": PLUS, "identity": PLUS},
    "inversegaussian": {"log": (-9.0, *LOG[2:]), "1/mu^2": PLUS, "inverse": PLUS},
    "beta": {"logit": FAR[1:-1], "probit": (-6.0, 0.3, 5.0), "cloglog": (-30.0, 0.3)},
    "betabinomial": {"logit": FAR[1:-1], "probit": (-6.0, 0.3, 5.0)},
    "gaussian": {"identity": FAR, "log": (-30.0, 0.3, 5.0), "inverse": PLUS},
    "student": {"identity": FAR, "log": (-30.0, 0.3, 5.0)},
}
GRID = [(name, link) for name in CASES for link in LINKS[name]]


def make(name, link):
    return CASES[name][0](link)


@filter_jit
def both(family, y, eta, phi, trials):
    """log_density and derivatives, and the derivatives by autodiff alone."""

    def row(y, eta, phi, trials):
        closed = family.derivatives(y, eta, phi, trials)
        if family.link.name != family.default_link:
            return (closed,)
        return closed, nested_derivatives(
            lambda t: family.log_density(y, t, phi, trials), eta
        )

    return jax.vmap(row)(y, eta, phi, trials)


derive = filter_jit(lambda family, *rest: family.derivatives(*rest))
density = filter_jit(lambda family, *rest: family.log_density(*rest))


def table(name, link):
    """Every combination of response, predictor and dispersion."""
    _, density, responses, phis, trials = CASES[name]
    points = [
        (y, eta, phi)
        for y in responses
        for eta in LINKS[name][link]
        for phi in phis or (0,)
    ]
    y, eta, phi = (np.array(v, float) for v in zip(*points, strict=True))
    phi = phi[:, None] if phis else np.zeros((len(y), 0))
    return density, y, eta, phi, np.full(len(y), trials)


@pytest.mark.parametrize(("name", "link"), GRID)
def test_against_sixty_digits(name, link):
    density, y, eta, phi, trials = table(name, link)
    true = np.array(
        [
            decimals.derivatives(density, *row, link)
            for row in zip(y, eta, phi.sum(1), trials, strict=True)
        ]
    )
    # what the rounding of eta alone changes: values are right to a few of its units
    unit = 2e-16 * (np.abs(eta) + np.abs(np.log(np.abs(y) + 1e-300)) + 2)
    slopes = np.abs(np.c_[true[:, 1:], true[:, 3]])
    for found in both(make(name, link), y, eta, phi, trials):
        for k in range(4):
            allowed = 1e-10 * np.abs(true[:, k]) + 2e-12 + 20 * unit * slopes[:, k]
            if k and link not in ("log", "logit"):  # log(mu) is curved near zero
                allowed += 1e-14 * (np.abs(true[:, 0]) + 1) / np.abs(eta) ** k
            if k:  # derivatives lose what cancels in the value
                allowed += 2e-15 * np.abs(true[:, :k]).max(axis=1) + 1e-11
                allowed += 4e-15 * np.abs(y)
            error = np.abs(np.asarray(found[k]) - true[:, k])
            worst = int(np.argmax(error / allowed))
            assert (error <= allowed).all(), (
                ["l", "s", "w", "w1"][k],
                [y[worst], eta[worst], *phi[worst]],
                (float(found[k][worst]), true[worst, k]),
            )


@pytest.mark.parametrize(
    ("name", "link"),
    [(name, next(iter(LINKS[name]))) for name in CASES] + [("binomial", "probit")],
)
def test_jit_gives_finite_gradients(name, link):
    family = make(name, link)
    _, y, eta, phi, trials = table(name, link)

    @filter_jit
    def total(family, eta, phi):
        def row(y, eta, phi, trials):
            return sum(
                jnp.where(jnp.abs(v) < 1e100, v, 0.0)
                for v in family.derivatives(y, eta, phi, trials)
            )

        return jax.vmap(jax.grad(row, argnums=(1, 2)))(y, eta, phi, trials)

    inner = np.abs(eta) < 50
    for gradient in total(family, eta, phi):
        assert np.isfinite(np.asarray(gradient)[inner]).all()


SCIPY = {
    "binomial": lambda y, mu, f, m: stats.binom.logpmf(y, m, mu),
    "poisson": lambda y, mu, f, m: stats.poisson.logpmf(y, mu),
    "nbinom2": lambda y, mu, f, m: stats.nbinom.logpmf(y, f, f / (f + mu)),
    "nbinom1": lambda y, mu, f, m: stats.nbinom.logpmf(y, mu / f, 1 / (1 + f)),
    "gamma": lambda y, mu, f, m: stats.gamma.logpdf(y, 1 / f, scale=mu * f),
    "inversegaussian": lambda y, mu, f, m: stats.invgauss.logpdf(
        y, mu * f, scale=1 / f
    ),
    "beta": lambda y, mu, f, m: stats.beta.logpdf(y, mu * f, (1 - mu) * f),
    "betabinomial": lambda y, mu, f, m: stats.betabinom.logpmf(
        y, m, mu * f, (1 - mu) * f
    ),
    "gaussian": lambda y, mu, f, m: stats.norm.logpdf(y, mu, f),
    "student": lambda y, mu, f, m: stats.t.logpdf(y, 3.5, mu, f),
}


def draws(family, rng, n=400, spread=2.0):
    """Predictors, a dispersion, trials and a response that suit each other."""
    eta = rng.uniform(-spread, spread, n)
    phi = rng.uniform(-1.5, 1.5, family.n_phi)
    trials = rng.integers(1, 40, n) * 1.0 if family.family_kind == "binomial" else 1.0
    y = family.simulate(rng, family.mean(eta), phi, trials)
    return y, eta, phi, trials


@pytest.mark.parametrize("name", list(SCIPY))
def test_against_scipy(name, rng):
    family = family_from(name) if name != "student" else jg.StudentT(df=3.5)
    for _ in range(5):
        y, eta, phi, trials = draws(family, rng)
        keep = (y > 1e-290) & (y < 1 - 1e-6) if name == "beta" else np.isfinite(y)
        natural = np.exp(phi[0]) if family.n_phi else None
        true = SCIPY[name](y, family.mean(eta), natural, trials)
        found = np.asarray(density(family, y, eta, phi, trials))
        np.testing.assert_allclose(found[keep], true[keep], rtol=1e-10, atol=1e-11)


@filter_jit
def slope_of(family, y, eta, phi):
    """d sum log f / d phi."""
    return jax.grad(lambda t: family.log_density(y, eta, t).sum())(phi)


def test_the_poisson_limit_is_smooth():
    y, eta = np.array([0.0, 3, 250, 1e6]), np.array([1.0, 0.5, 5.6, 13.8])
    limit = np.asarray(density(jg.Poisson(), y, eta, np.zeros(0)))
    for phi in (34.0, 40.0, 80.0, 99.9, 300.0, 700.0, 1e5):
        for kind, sign in ((1, -1), (2, 1)):
            family = jg.NegativeBinomial(kind=kind)
            found = derive(family, y, eta, np.array([sign * phi]))
            exact = derive(jg.Poisson(), y, eta, np.zeros(0))
            np.testing.assert_allclose(found[0], limit, rtol=1e-8, atol=1e-12)
            for a, b in zip(found[1:], exact[1:], strict=True):
                # the difference is of the order mu^2 / phi
                np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-6)
            slope = slope_of(family, y, eta, np.array([sign * phi]))
            assert np.abs(slope) < 1e-2


def test_the_approach_to_the_poisson_limit_is_of_first_order():
    """l(phi) - l(inf) = ((y - mu)^2 - y) / (2 phi) + O(1 / phi^2)."""
    y, eta = np.array([0.0, 3.0, 9.0]), np.array([1.0, 0.5, 1.9])
    limit = density(jg.Poisson(), y, eta, np.zeros(0))
    mu = np.exp(eta)
    for phi in (1e5, 1e6, 1e7, 1e8):
        found = density(jg.NegativeBinomial(), y, eta, np.log([phi])) - limit
        np.testing.assert_allclose(found * phi, ((y - mu) ** 2 - y) / 2, rtol=1e-3)


def test_binomial_is_the_limit_of_the_beta_binomial():
    y, eta, m = (
        np.array([0.0, 3, 500]),
        np.array([-1.0, 0.5, 0.1]),
        np.array([4, 9, 1e3]),
    )
    limit = derive(jg.Binomial(), y, eta, np.zeros(0), m)
    for phi in (40.0, 100.0, 1e4):
        found = derive(jg.BetaBinomial(), y, eta, np.array([phi]), m)
        for a, b in zip(found, limit, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["binomial", "poisson"])
def test_the_kernel_lacks_only_the_base(name, rng):
    family = family_from(name)
    y, eta, phi, trials = draws(family, rng)
    kernel = family.kernel_derivatives(y, eta, phi, trials)[0]
    full = family.log_density(y, eta, phi, trials)
    np.testing.assert_allclose(kernel + family.log_base(y, trials), full, atol=1e-11)


@pytest.mark.parametrize(
    ("name", "link", "eta"),
    [
        ("poisson", "identity", -1.0),
        ("nbinom2", "identity", -1.0),
        ("nbinom1", "identity", 0.0),
        ("gamma", "inverse", -0.5),
        ("inversegaussian", "1/mu^2", -0.5),
        ("binomial", "log", 0.5),
        ("binomial", "identity", 1.5),
        ("binomial", "identity", -0.5),
        ("beta", "log", 0.5),
    ],
)
@pytest.mark.parametrize("y", [0.0, 1.0])
def test_outside_the_domain_the_density_is_zero(name, link, eta, y):
    y = 0.5 if name == "beta" else max(y, 0.1) if "ga" in name else y
    family = make(name, link)
    phi = jnp.zeros(family.n_phi)
    found = family.derivatives(jnp.array([y]), jnp.array([eta]), phi, 1.0)
    assert found[0] == -np.inf
    assert all(np.isfinite(v).all() for v in found[1:])
    weight = family.expected_weight(jnp.array([eta]), phi, 1.0)
    assert (np.asarray(weight) > 0).all() or name in ("gamma", "inversegaussian")


def rule(family, mu, phi, trials):
    """Points and weights of expectations over y given mu."""
    if family.discrete:
        top = int(trials) if family.family_kind == "binomial" else 3000
        y = np.arange(top + 1.0)
        return y, np.ones_like(y)
    t, w = np.polynomial.legendre.leggauss(400)
    u, w = (t + 1) / 2, w / 2
    shares = {"beta": lambda: u}
    if family.name in shares:
        # a change of variable that flattens the ends: y = u^4 (35 - ...) is overkill
        x = u**2 * (3 - 2 * u)
        return x, w * 6 * u * (1 - u)
    if family.name in ("gamma", "inversegaussian"):
        x = 80 * u - 40
        return np.exp(x), w * 80 * np.exp(x)
    x = np.sinh(16 * u - 8)
    return mu + x, w * 16 * np.cosh(16 * u - 8)


INFORMATION = [
    ("binomial", "logit", 0.0),
    ("binomial", "probit", 0.0),
    ("binomial", "cloglog", 0.0),
    ("binomial", "cauchit", 0.0),
    ("poisson", "log", 0.0),
    ("poisson", "sqrt", 0.0),
    ("nbinom2", "log", 0.3),
    ("nbinom2", "identity", 0.3),
    ("gamma", "log", -0.5),
    ("gamma", "inverse", -0.5),
    ("inversegaussian", "log", -0.5),
    ("inversegaussian", "1/mu^2", -0.5),
    ("beta", "logit", 2.0),
    ("beta", "probit", 2.0),
    ("gaussian", "identity", -0.5),
    ("gaussian", "log", -0.5),
    ("student", "identity", -0.5),
]
BOUNDED = [("nbinom1", "log", 0.3), ("betabinomial", "logit", 1.0)]


@pytest.mark.parametrize(("name", "link", "phi"), INFORMATION + BOUNDED)
def test_expected_weight_is_the_fisher_information(name, link, phi):
    family = make(name, link)
    phi = np.full(family.n_phi, phi)
    trials = 9.0 if family.family_kind == "binomial" else 1.0
    for eta in (0.4, 1.3):
        mu = float(family.mean(eta))
        y, w = rule(family, mu, phi, trials)
        at = np.full(len(y), eta)
        l, s, observed, _ = derive(family, y, at, phi, np.full(len(y), trials))
        density = np.exp(l) * w
        np.testing.assert_allclose(density.sum(), 1, rtol=1e-6)
        truth = (density * observed).sum()
        np.testing.assert_allclose((density * s * s).sum(), truth, rtol=1e-5)
        found = float(family.expected_weight(jnp.array(eta), phi, trials))
        if (name, link, float(phi[0]) if len(phi) else 0.0) in BOUNDED:
            assert 0.5 * truth < found <= truth
        else:
            np.testing.assert_allclose(found, truth, rtol=1e-5)
        size = trials if family.family_kind == "binomial" else 1.0
        np.testing.assert_allclose((density * y).sum(), size * mu, rtol=1e-4, atol=1e-9)
        if name != "student":
            np.testing.assert_allclose(
                (density * (y - size * mu) ** 2).sum(),
                family.variance(mu, phi, trials),
                rtol=1e-4,
            )


def test_expected_weights_stay_positive_far_out():
    eta = jnp.array(FAR)
    for name in CASES:
        family = family_from(name)
        weight = family.expected_weight(eta, jnp.zeros(family.n_phi), 1.0)
        assert (np.asarray(weight) > 0).all(), name


# -- names and objects ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "name", "link"),
    [
        ("binomial", "binomial", "logit"),
        ("Bernoulli", "binomial", "logit"),
        ("POISSON", "poisson", "log"),
        ("negativebinomial", "nbinom2", "log"),
        ("negative_binomial", "nbinom2", "log"),
        ("nbinom1", "nbinom1", "log"),
        ("Gamma", "gamma", "log"),
        ("inverse.gaussian", "inversegaussian", "log"),
        ("beta", "beta", "logit"),
        ("beta_family", "beta", "logit"),
        ("betabinomial", "betabinomial", "logit"),
        ("t", "t", "identity"),
        ("student", "student", "identity"),
        ("t_family", "t", "identity"),
        ("lognormal", "lognormal", "log"),
        ("skewnormal", "skewnormal", "identity"),
        ("genpois", "genpois", "log"),
        ("compois", "compois", "log"),
        ("tweedie", "tweedie", "log"),
        ("ordered_beta", "ordbeta", "logit"),
        ("zero_one_inflated_beta", "one_inflated_beta", "logit"),
        ("normal", "gaussian", "identity"),
        (jg.Poisson, "poisson", "log"),
        (jg.NegativeBinomial, "nbinom2", "log"),
        (jg.Bernoulli, "binomial", "logit"),
        (jg.Binomial(link="probit"), "binomial", "probit"),
    ],
)
def test_families_by_name(given, name, link):
    family = family_from(given)
    assert (family.name, family.link.name) == (name, link)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: family_from("poison"), "did you mean 'poisson'"),
        (lambda: family_from("zzz"), "unknown family 'zzz'; there are 'gaussian'"),
        (lambda: family_from(3), "not int"),
        (lambda: jg.Gamma(link="logit"), "'logit' does not suit the family 'gamma'"),
        (lambda: jg.Poisson(link="lgo"), "unknown link 'lgo'; there are 'logit'"),
        (lambda: jg.Poisson(link=3), "link=3: a family takes"),
        (lambda: jg.NegativeBinomial(kind=3), "kind must be 1 or 2"),
        (lambda: jg.StudentT(df=-1), "df must be a positive number"),
    ],
)
def test_texts_of_bad_requests(make, text):
    with pytest.raises(ModelError) as caught:
        make()
    assert text in str(caught.value)


def test_families_are_static_for_jit():
    count = 0

    @filter_jit
    def value(family, eta):
        nonlocal count
        count += 1
        return family.log_density(jnp.ones(3), eta, jnp.zeros(family.n_phi))

    for name in FAMILIES:
        if name in ("beta", "bernoulli", "cumulative"):
            continue
        before = count
        for _ in range(2):
            value(family_from(name), jnp.ones(3) * 0.3)
        assert count == before + 1
    assert jax.tree_util.tree_leaves(jg.StudentT(df=3)) == []
    assert jg.StudentT(df=3) == jg.StudentT(df=3) != jg.StudentT(df=4)
    assert hash(jg.Poisson()) == hash(jg.Poisson())


def test_families_pickle():
    import pickle

    for name in FAMILIES:
        family = family_from(name)
        assert pickle.loads(pickle.dumps(family)) == family


def test_padding_is_a_value_that_any_row_may_have():
    for name in FAMILIES:
        family = family_from(name)
        if family.family_kind == "ordinal":
            family = family.of_levels((1, 2, 3))
        found = family.derivatives(
            jnp.full(3, family.padding),
            jnp.array([-2.0, 0.0, 2.0]),
            jnp.zeros(family.n_phi),
            jnp.ones(3),
        )
        assert all(np.isfinite(v).all() for v in found), name


# -- a family of one's own -----------------------------------------------------------


class Laplace(AbstractFamily):
    """Two-sided exponential, smoothed near zero: log density only."""

    name = "smooth-laplace"
    n_phi = 1
    phi_names = ("scale",)

    def log_density(self, y, eta, phi, trials=1.0):
        z = (y - self.link.inverse(eta)) * jnp.exp(-phi[0])
        return -jnp.sqrt(1 + z * z) - phi[0] - 1.18593


def test_a_family_of_ones_own_needs_only_its_density():
    family = Laplace()
    y, eta, phi = np.array([1.0, 2.0]), np.array([0.5, 2.5]), np.array([0.1])
    _, s, w, w1 = family.derivatives(y, eta, phi)
    z = (y - eta) / np.exp(0.1)
    np.testing.assert_allclose(s, z / np.sqrt(1 + z * z) / np.exp(0.1), rtol=1e-12)
    assert np.isfinite(w1).all()
    assert (np.asarray(w) > 0).all()
    assert family.dispersion(phi) == {"scale": pytest.approx(np.exp(0.1))}
    start, phi0 = family.start(y)
    np.testing.assert_allclose(start, y)
    assert phi0.shape == (1,)
    family.check(y)
    assert (np.asarray(family.expected_weight(eta, phi)) > 0).all()
    deviance = family.deviance_residuals(y, family.mean(eta), phi)
    np.testing.assert_allclose(
        deviance, np.sign(z) * np.sqrt(2 * (np.sqrt(1 + z * z) - 1)), rtol=1e-6
    )
    for call in (
        lambda: family.variance(y, phi),
        lambda: family.cdf(y, y, phi),
        lambda: family.simulate(np.random.default_rng(0), y, phi),
    ):
        with pytest.raises(jg.NotApplicableError, match="define"):
            call()
