"""Priors: densities that integrate to one, draws that follow them, names resolved."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from doors import bijections_correlation as correlation
from doors import design_from_formula, log_lkj, resolve
from scipy import integrate, stats

import jaxglmm as jg
from jaxglmm.model.families import family_from

SCALES = {
    "half-normal": (jg.HalfNormal(0.7), stats.halfnorm(scale=0.7)),
    "half-t": (jg.HalfT(3, 2.5), None),
    "half-cauchy": (jg.HalfT(1, 5), stats.halfcauchy(scale=5)),
    "exponential": (jg.Exponential(2.0), stats.expon(scale=0.5)),
    "log-normal": (jg.LogNormal(0.3, 0.8), stats.lognorm(0.8, scale=np.exp(0.3))),
}


@pytest.fixture(autouse=True)
def _double():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("name", SCALES)
def test_densities(name, rng):
    prior, known = SCALES[name]
    x = np.array([0.01, 0.3, 1.0, 4.0])
    density = np.exp(np.asarray(prior.log_density(jnp.asarray(x))))
    if known is not None:
        np.testing.assert_allclose(density, known.pdf(x), rtol=1e-10)
    mass = integrate.quad(
        lambda v: float(np.exp(prior.log_density(jnp.asarray(v)))), 0, np.inf
    )[0]
    assert mass == pytest.approx(1, abs=1e-6)
    draws = prior.sample(rng, 20_000)
    below = integrate.quad(
        lambda v: float(np.exp(prior.log_density(jnp.asarray(v)))), 0, 1
    )[0]
    assert np.mean(draws < 1) == pytest.approx(below, abs=0.015)


def test_exponential_by_its_tail():
    prior = jg.Exponential.tail(1.5, 0.05)
    assert np.exp(-prior.rate * 1.5) == pytest.approx(0.05)


@pytest.mark.parametrize("eta", [0.7, 1.0, 3.0])
def test_lkj_is_normalised(eta):
    def f(v):
        return float(np.exp(log_lkj(jnp.asarray([v]), 2, eta)))

    assert integrate.quad(f, -30, 30)[0] == pytest.approx(1, abs=1e-6)


def test_lkj_is_the_density_of_the_matrix():
    """Against |R|^(eta - 1) times the Jacobian of the coordinates, K = 3."""

    def entries(y):
        L = correlation(y, 3)
        R = L @ L.T
        return jnp.stack([R[1, 0], R[2, 0], R[2, 1]])

    constants = []
    for y in np.random.default_rng(3).normal(size=(5, 3)) * 0.7:
        y = jnp.asarray(y)
        J = jnp.abs(jnp.linalg.det(jax.jacfwd(entries)(y)))
        L = correlation(y, 3)
        by_matrix = (2.5 - 1) * jnp.log(jnp.linalg.det(L @ L.T)) + jnp.log(J)
        constants.append(float(log_lkj(y, 3, 2.5) - by_matrix))
    np.testing.assert_allclose(constants, constants[0], atol=1e-10)


def correlation_inverse(R: np.ndarray) -> np.ndarray:
    """(m,) coordinates of a correlation matrix, on the host; kept inside (-1, 1)."""
    L = np.linalg.cholesky(R)
    out = []
    for i in range(len(L)):
        left = 1.0
        for j in range(i):
            w = L[i, j] / np.sqrt(left)
            out.append(np.arctanh(np.clip(w, -0.999999, 0.999999)))
            left *= 1 - min(w**2, 0.999999)
    return np.array(out)


def test_coordinates_of_correlations(rng):
    y = rng.normal(size=6) * 0.8
    L = np.asarray(correlation(jnp.asarray(y), 4))
    np.testing.assert_allclose(np.diag(L @ L.T), 1.0)
    np.testing.assert_allclose(correlation_inverse(L @ L.T), y, atol=1e-9)


def test_lkj_draws(rng):
    """Uniform over correlation matrices: each correlation 2 Beta(K / 2, K / 2) - 1."""
    L = np.stack([jg.LKJ(1).sample(rng, 3) for _ in range(4000)])
    R = L @ np.swapaxes(L, 1, 2)
    for i, j in ((1, 0), (2, 0), (2, 1)):
        test = stats.kstest((R[:, i, j] + 1) / 2, stats.beta(1.5, 1.5).cdf)
        assert test.pvalue > 1e-3


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: jg.Normal(0, -1), "sd=-1 must be a positive number"),
        (lambda: jg.HalfT(0, 1), "df=0"),
        (lambda: jg.Exponential.tail(1, 2), "alpha=2"),
        (lambda: jg.LKJ(0), "eta=0"),
        (lambda: jg.Normal(np.nan, 1), "must be finite"),
        (lambda: jg.Normal(0, np.inf).sample(np.random.default_rng(0)), "flat prior"),
    ],
)
def test_numbers_are_checked(make, text):
    with pytest.raises(jg.ModelError, match=text):
        make()


@pytest.fixture(scope="module")
def sleep():
    return design_from_formula(
        "Reaction ~ Days + (Days | Subject)", jg.datasets.load("sleepstudy")
    )


def test_defaults_know_the_scale(sleep):
    family = family_from("gaussian")
    found = resolve(sleep, family, None)
    sd = sleep.y.std()
    assert found.coefficients[0].mean == pytest.approx(sleep.y.mean())
    assert found.coefficients[1].sd == pytest.approx(2.5 * sd / sleep.X[:, 1].std())
    sds, lkj = found.terms["Subject"].sds, found.terms["Subject"].lkj
    assert sds[0].scale == pytest.approx(2.5 * sd)
    assert lkj.eta == 1
    assert found.center[0, 1] == pytest.approx(4.5)
    text = str(found)
    assert text.count("default") == 6
    assert "covariates' means" in text


def test_names_are_resolved(sleep):
    family = family_from("gaussian")
    found = resolve(
        sleep,
        family,
        jg.Priors(
            coefficients={"Days": 5},
            sd={"Subject:Days": jg.HalfNormal(10)},
            correlation=2,
            dispersion=jg.Exponential(0.1),
            centered=False,
        ),
    )
    assert found.coefficients[1].sd == 5
    assert isinstance(found.terms["Subject"].sds[0], jg.HalfT)
    assert found.terms["Subject"].sds[1].sd == 10
    assert found.terms["Subject"].lkj.eta == 2
    assert not found.center.any()
    assert str(found).count("given") == 4


def test_others_are_those_not_named():
    data = {"y": np.arange(12.0), "g": np.arange(12) % 3, "h": np.arange(12) % 4}
    data |= {name: np.cos(k * np.arange(12.0)) for k, name in enumerate("abc", 1)}
    design = design_from_formula("y ~ a + b + c + (a | g) + (b | h)", data)
    priors = jg.Priors(
        coefficients={"a": 5, "others": jg.Normal(1, 2)},
        sd={"g": jg.HalfNormal(3), "others": jg.Exponential(1)},
        correlation={"h": 4, "others": 2},
    )
    found = resolve(design, family_from("gaussian"), priors)
    assert [p.sd for p in found.coefficients[1:]] == [5, 2, 2]
    assert found.coefficients[0].sd > 5  # the intercept has a prior of its own
    g, h = (found.terms[name] for name in "gh")
    assert [type(p) for p in (*g.sds, *h.sds)] == [jg.HalfNormal] * 2 + [
        jg.Exponential
    ] * 2
    assert (g.lkj.eta, h.lkj.eta) == (2, 4)
    # a coefficient of that name has the key to itself
    data["others"] = data.pop("c")
    design = design_from_formula("y ~ a + others + (1 | g)", data)
    own = jg.Priors(coefficients={"others": 2.0})
    found = resolve(design, family_from("gaussian"), own)
    assert found.coefficients[2].sd == 2
    assert str(found).count("given") == 1


@pytest.mark.parametrize(
    ("priors", "text"),
    [
        (jg.Priors(coefficients={"days": 1}), "'days'; the model has"),
        (jg.Priors(coefficients=[1, 2, 3]), "3 coefficients"),
        (jg.Priors(sd={"subject": jg.HalfNormal()}), "'subject'"),
        (jg.Priors(sd=3), "give one of jg.HalfT"),
        (jg.Priors(correlation="x"), "give jg.LKJ"),
        (jg.Priors(coefficients="x"), "give jg.Normal"),
        ({"sd": 1}, "must be jg.Priors"),
    ],
)
def test_names_and_kinds_are_checked(sleep, priors, text):
    with pytest.raises(jg.ModelError, match=text):
        resolve(sleep, family_from("gaussian"), priors)


def test_a_dispersion_needs_one():
    design = design_from_formula("incidence ~ 1 + (1 | herd)", jg.datasets.load("cbpp"))
    with pytest.raises(jg.ModelError, match="has none"):
        resolve(design, family_from("poisson"), jg.Priors(dispersion=jg.HalfNormal(1)))
