"""Importance sampling and NUTS find the same posterior, judged by both their errors.

Both sample the marginal posterior, each in its own way: what they share is the
likelihood with the random effects integrated out (exactly, or by Laplace). One factor
by quadrature is in ``test_methods``, where both meet the truth on cbpp, and so is that
sampling the joint density, which approximates nothing, gives the same: on cbpp,
sleepstudy and counts of crossed factors.
"""

import numpy as np
import pytest

import jaxglmm as jg

TICKS = "TICKS ~ YEAR + HEIGHT + (1 | BROOD) + (1 | INDEX) + (1 | LOCATION)"
VERBAGG = "r2 ~ Anger + Gender + btype + situ + (1 | id) + (1 | item)"

PERSONS = 100  # of VerbAgg's 316: crossed factors, at a third of the time

# data, formula, family, draws and warm-up of each of NUTS' chains
CASES = {
    "sleepstudy": ("Reaction ~ Days + (Days | Subject)", None, 400, 150),
    "grouseticks": (TICKS, "poisson", 250, 100),
    "VerbAgg": (VERBAGG, "binomial", 100, 50),
}
WORST = 4.5  # standard errors: some forty numbers are compared


@pytest.mark.slow
@pytest.mark.mcmc
@pytest.mark.filterwarnings("ignore::jaxglmm.PosteriorWarning")  # few draws
@pytest.mark.parametrize("name", list(CASES))
def test_importance_sampling_agrees_with_nuts(name):
    formula, family, draws, warmup = CASES[name]
    data = jg.datasets.load(name)
    if name == "VerbAgg":
        data = data[data["id"].isin(data["id"].unique()[:PERSONS])]
    nuts = jg.NUTS(draws=draws, warmup=warmup, chains=4, seed=7)
    one, two = (
        jg.lmm(formula, data, method=method)
        if family is None
        else jg.glmm(formula, data, family=family, method=method)
        for method in (jg.NestedLaplace(), nuts)
    )
    assert one.khat < 0.7
    assert one.posterior.ess > 1000
    a, b = one.posterior, two.posterior
    assert a.facts["nodes"] == b.facts["nodes"]
    table = b.summary()
    assert table["rhat"].max() < 1.05
    ess = table["ess_bulk"].to_numpy()
    assert ess.min() > 100
    # the means, in standard errors of both
    worst = agreement(a.parameters, b.parameters, ess, a.ess)
    assert worst["mean"] < WORST
    assert worst["log sd"] < WORST
    # how far to trust it is said by the certificate
    assert one.certificate["khat"].level < 2


def agreement(one, two, ess_two, ess_one):
    """Largest differences of means and of log sds, in standard errors."""
    means, spreads = [], []
    for (name, x), ess in zip(one.items(), ess_two, strict=True):
        y = two[name]
        if name.startswith("sd_"):  # nearer to a Gaussian
            x, y = np.log(x), np.log(y)
        both = 1 / ess + 1 / ess_one
        means.append((x.mean() - y.mean()) / (x.std() * np.sqrt(both)))
        # the error of a log sd, by the kurtosis of what was drawn
        z = (x - x.mean()) / x.std()
        kurtosis = np.mean(z**4) - 1
        spreads.append(np.log(x.std() / y.std()) / np.sqrt(kurtosis / 4 * both))
    return {"mean": np.abs(means).max(), "log sd": np.abs(spreads).max()}
