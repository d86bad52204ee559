"""Dispersion parameters on scales of their own, and as functions of one another."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from doors import FISHER, LOG, PLAIN, field
from doors import scales_between as between

import jaxglmm as jg
from jaxglmm import ModelError
from jaxglmm.model.families import AbstractFamily

N, J = 120, 12


def normal(y, mean, log_sd):
    z = (y - mean) * jnp.exp(-log_sd)
    return -0.5 * z * z - log_sd - 0.5 * jnp.log(2 * jnp.pi)


class Mixture(AbstractFamily):
    """Of two normals: the sd of one, sd_2 / sd_1, how many are of the second."""

    name: ClassVar[str] = "mixture"
    n_phi: ClassVar[int] = 3
    phi_names: ClassVar[tuple[str, ...]] = ("sigma", "ratio", "share")
    phi_scales: ClassVar[tuple] = (LOG, LOG, between(0.0, 0.5))

    def log_density(self, y, eta, phi, trials=1.0):
        sigma, ratio, share = self.natural(phi)
        narrow = normal(y, eta, jnp.log(sigma)) + jnp.log1p(-share)
        wide = normal(y, eta, jnp.log(sigma * ratio)) + jnp.log(share)
        return jnp.logaddexp(narrow, wide)

    def start(self, y, trials=None):
        return np.array(y), np.array([np.log(np.std(y)), 1.0, 0.0])


class Sds(Mixture):
    """The same told by both sds: the second is a function of two phi."""

    phi_names: ClassVar[tuple[str, ...]] = ("sigma", "sigma_2", "share")
    phi_apart: ClassVar[bool] = False
    second: bool = field(static=True, default=False)  # phi[1] is log sigma_2

    def natural(self, phi: Any):
        a, b, c = super().natural(phi)
        return (jnp if isinstance(phi, jax.Array) else np).stack(
            [a, b if self.second else a * b, c]
        )

    def from_natural(self, values: Any):
        a, b, c = values
        return super().from_natural(np.stack([a, b if self.second else b / a, c]))

    def natural_jacobian(self, phi):
        _a, b, _ = self.natural(np.asarray(phi))
        own = super().natural_jacobian(phi)
        own[1, :2] = b, b
        return own

    def log_natural_slope(self, phi):
        return super().log_natural_slope(phi) + phi[0]

    def holding(self, r, phi):
        if r != 1:
            return self, np.asarray(phi)
        held = Sds()
        object.__setattr__(held, "second", True)
        return held, np.array([phi[0], phi[0] + phi[1], phi[2]])

    def log_density(self, y, eta, phi, trials=1.0):
        if self.second:
            phi = jnp.stack([phi[0], phi[1] - phi[0], phi[2]])
        sigma, ratio, share = Mixture.natural(self, phi)
        narrow = normal(y, eta, jnp.log(sigma)) + jnp.log1p(-share)
        wide = normal(y, eta, jnp.log(sigma * ratio)) + jnp.log(share)
        return jnp.logaddexp(narrow, wide)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(2)
    g = np.arange(N) % J
    wide = rng.random(N) < 0.25
    y = rng.normal(size=J)[g] + rng.normal(size=N) * np.where(wide, 4.0, 0.7)
    return {"y": y, "g": g}


@pytest.fixture(scope="module")
def fits(data):
    return [jg.glmm("y ~ 1 + (1 | g)", data, family=f) for f in (Mixture(), Sds())]


def test_every_parameter_has_its_name_and_error(fits):
    plain, other = fits
    assert plain.log_likelihood == pytest.approx(other.log_likelihood, abs=1e-7)
    assert plain.npar == 5
    named, both = plain.dispersions, other.dispersions
    assert list(named) == ["sigma", "ratio", "share"]
    assert 0 < named["share"] < 0.5
    assert both["sigma_2"] == pytest.approx(named["sigma"] * named["ratio"], rel=1e-5)
    tables = [fit.tidy(effects="all").set_index("term") for fit in fits]
    for table, names in zip(tables, (named, both), strict=True):
        np.testing.assert_allclose(table.loc[[*names], "estimate"], [*names.values()])
    for name in ("sigma", "share"):
        one, two = (table.loc[name, "std_error"] for table in tables)
        assert one == pytest.approx(two, rel=1e-4)
    # the delta method by hand
    V = plain.parameter_covariance[-3:, -3:]
    s, r = named["sigma"], named["ratio"]
    slope = np.array([s * r, s * r, 0.0])
    error = np.sqrt(slope @ V @ slope)
    assert tables[1].loc["sigma_2", "std_error"] == pytest.approx(error, rel=1e-4)
    assert "share" in plain.summary().__str__()


def test_profiles_of_each(fits):
    """The same interval whichever way the parameter is told."""
    one, two = (fit.confint(method="profile") for fit in fits)
    for name in ("sigma", "share", "sd_(Intercept)|g", "(Intercept)"):
        np.testing.assert_allclose(one.loc[name], two.loc[name], rtol=1e-4, atol=1e-5)
    low, high = two.loc["sigma_2"]
    assert low < fits[1].dispersions["sigma_2"] < high
    low, high = one.loc["share"]
    assert 0 <= low < high <= 0.5


def test_many_fits_and_bootstraps_have_natural_values(fits, data):
    fit = fits[0]
    Y = np.stack([data["y"], data["y"] + 1], axis=1)
    many = jg.fit_many("y ~ 1 + (1 | g)", data, responses=Y, family=Mixture())
    named = [*fit.dispersions.values()]
    np.testing.assert_allclose(many.dispersion, [named] * 2, rtol=1e-3)
    np.testing.assert_allclose(many[1].log_likelihood, fit.log_likelihood, atol=1e-6)


def test_priors_by_name_on_natural_values(data):
    priors = jg.Priors(dispersion={"ratio": jg.Fixed(4.0)})
    fit = jg.glmm(
        "y ~ 1 + (1 | g)", data, family=Mixture(), method="map", priors=priors
    )
    draws = fit.posterior.draws.dispersion
    assert list(draws) == ["sigma", "ratio", "share"]
    assert (draws["ratio"] == 4.0).all()
    assert (draws["share"] > 0).all()
    assert (draws["share"] < 0.5).all()
    assert "Uniform(low=0, high=0.5)" in str(fit.priors)
    assert fit.estimates.phi[1] == pytest.approx(np.log(4.0))
    for wrong, words in (
        ({"nothing": jg.Fixed(1)}, "sigma"),
        ({"share": jg.Fixed(0.7)}, "between 0 and 0.5"),
        ({"share": 3}, "Uniform"),
        ({"ratio": jg.Normal(0, 1)}, "HalfT"),
    ):
        with pytest.raises(ModelError, match=words):
            jg.glmm(
                "y ~ 1 + (1 | g)",
                data,
                family=Mixture(),
                method="map",
                priors=jg.Priors(dispersion=wrong),
            )
    one = jg.Priors(dispersion={"sigma": jg.Fixed(1)})
    with pytest.raises(ModelError, match="together"):
        jg.glmm("y ~ 1 + (1 | g)", data, family=Sds(), method="map", priors=one)


@pytest.mark.parametrize("scale", [PLAIN, LOG, FISHER, between(1.0, 2.0)])
def test_scales(scale):
    x = np.array([-2.0, 0.1, 1.5])
    value = scale.back(x)
    np.testing.assert_allclose(scale.to(value), x, rtol=1e-12)
    step = 1e-6
    slope = (scale.back(x + step) - scale.back(x - step)) / (2 * step)
    np.testing.assert_allclose(scale.slope(value), slope, rtol=1e-7)
    np.testing.assert_allclose(scale.log_slope(x), np.log(slope), rtol=1e-6, atol=1e-7)
    low, high = scale.ends
    assert (value > low).all()
    assert (value < high).all()
