"""What ordinal fits are asked: predictions, their errors, tables, files, refusals."""

import pickle
import warnings

import jax
import numpy as np
import pandas as pd
import pytest
from doors import estimates, mode_at, scale, tree_at
from ordinal_cases import data, reference, values

import jaxglmm as jg
from jaxglmm import DataError, FormulaError, ModelError, NotApplicableError


@pytest.fixture(scope="module")
def wine():
    return jg.clmm("rating ~ temp + contact + (1 | judge)", data("wine_rating"))


NEW = pd.DataFrame(
    {"temp": ["cold", "warm", "warm"], "contact": ["no", "yes", "no"], "judge": "1"}
)


def test_front_doors_are_glmm(wine):
    d = data("wine_rating")
    other = jg.glmm(
        "rating ~ temp + contact + (1 | judge)",
        d,
        family=jg.Cumulative(),
        method="laplace",
    )
    assert other.criterion == pytest.approx(wine.criterion, rel=1e-9)
    text = jg.clmm(
        "rating ~ temp + contact + (1 | judge)",
        d.assign(rating=[f"r{x}" for x in d["rating"].astype(str)]),
        levels=[f"r{k}" for k in range(1, 6)],
    )
    assert text.criterion == pytest.approx(wine.criterion, rel=1e-9)
    assert text.thresholds.index.tolist()[0] == "r1|r2"
    numbers = jg.clmm(
        "rating ~ temp + contact + (1 | judge)", d.assign(rating=d.rating.astype(int))
    )
    assert numbers.criterion == pytest.approx(wine.criterion, rel=1e-9)
    with pytest.raises(ModelError, match="for models without random effects"):
        jg.clm("rating ~ temp + (1 | judge)", d)


@pytest.mark.parametrize("type", ["probs", "cum_probs", "mean_class"])
@pytest.mark.parametrize("re", ["population", "marginal", "conditional"])
def test_errors_are_those_of_refitted_parameters(wine, type, re):
    """Delta method against differences of the prediction in every parameter."""
    table = wine.predict(NEW, re=re, type=type, se=True)
    error = table["se"].to_numpy().reshape(len(NEW), -1)
    engine, (psi, _) = wine.engine, wine.internal()
    root = wine.parameter_root

    def at(change):
        moved = psi + change
        with jax.enable_x64(True):
            u = jax.device_get(mode_at(engine.base, moved))
            found = replace_psi(wine, engine, moved, u)
        return np.asarray(found.predict(NEW, re=re, type=type)).reshape(len(NEW), -1)

    def replace_psi(fit, engine, moved, u):
        theta = engine.base.split(moved)[1]
        b = [np.asarray(x) for x in scale(engine.base.lambdas(theta), u)]
        kept = fit.fitted
        new = tree_at(lambda f: (f.psi, f.u, f.b), kept, (moved, u, tuple(b)))
        made = estimates(engine, fit.design, new)
        return fit.like(fit.design, made, engine, {})

    J = []
    for k in range(len(psi)):
        step = np.zeros(len(psi))
        step[k] = 1e-5
        J.append((at(step) - at(-step)) / 2e-5)
    half = np.einsum("knc,kr->ncr", np.array(J), root)
    square = np.sum(half**2, axis=-1)
    if re == "conditional":
        assert (error**2 > square).all()
        from doors import effects_variance
        from doors import predict as rows

        own = effects_variance(wine, rows.rows(wine, NEW))
        slope = []
        for sign in (1, -1):
            eta = rows.mean(wine, rows.rows(wine, NEW), re) + sign * 1e-5
            P = wine.probabilities(eta)
            if type == "cum_probs":
                P = np.cumsum(P, axis=1)[:, :-1]
            elif type == "mean_class":
                P = (P @ np.arange(1.0, 6.0))[:, None]
            slope.append(P)
        square = square + ((slope[0] - slope[1]) / 2e-5) ** 2 * own[:, None]
    np.testing.assert_allclose(error, np.sqrt(square), rtol=1e-4)


def test_predictions_agree_with_one_another(wine):
    P = wine.predict(NEW, type="probs")
    assert list(P.columns) == ["1", "2", "3", "4", "5"]
    np.testing.assert_allclose(P.sum(axis=1), 1.0)
    C = wine.predict(NEW, type="cum_probs")
    assert list(C.columns) == ["1|2", "2|3", "3|4", "4|5"]
    np.testing.assert_allclose(C, np.cumsum(P.to_numpy(), axis=1)[:, :-1])
    mean = wine.predict(NEW)
    np.testing.assert_allclose(mean, P.to_numpy() @ np.arange(1, 6))
    assert wine.predict(NEW, type="class").tolist() == P.idxmax(axis=1).tolist()
    eta = wine.predict(NEW, type="link", re="population")
    np.testing.assert_allclose(
        eta, [0.0, wine.coefficients.sum(), wine.coefficients[0]]
    )
    limits = wine.predict(NEW, type="probs", interval="confidence", level=0.9)
    low, high = limits["lower"].to_numpy(), limits["upper"].to_numpy()
    assert (low < P.to_numpy()).all()
    assert (P.to_numpy() < high).all()
    assert (low > 0).all()
    assert (high < 1).all()
    # the marginal probability is the mean over draws of the random effect
    rng = np.random.default_rng(2)
    sd = float(wine.varcorr["judge"].sd.iloc[0])
    b = sd * rng.normal(size=200_000)
    drawn = wine.probabilities(eta[0] + b).mean(axis=0)
    np.testing.assert_allclose(
        wine.predict(NEW, type="probs", re="marginal").iloc[0], drawn, atol=2e-3
    )


def test_tables(wine):
    tidy = wine.tidy(["fixed", "ran_pars"], conf_int=True)
    assert tidy["effect"].tolist() == ["threshold"] * 4 + ["fixed"] * 2 + ["ran_pars"]
    assert tidy["term"].tolist()[:4] == ["1|2", "2|3", "3|4", "4|5"]
    own = wine.confint()
    np.testing.assert_allclose(own["lower"], tidy["conf_low"][:6])
    r = reference("wine_clmm")
    V = np.array(r["vcov"]["matrix"])[:6, :6]
    np.testing.assert_allclose(wine.joint_vcov, V, rtol=1e-3, atol=1e-4)
    text = str(wine.summary())
    for words in ("Cumulative link mixed model", "1 < 2 < 3 < 4 < 5", "1|2"):
        assert words in text
    assert "Threshold coefficients" in wine.summary()._repr_html_()
    assert "(Intercept)" not in wine.fixef
    table = wine.predictions(by="temp", type="probs")
    assert table.groupby("temp", observed=True)["estimate"].sum().round(12).eq(1).all()
    assert wine.contrasts("temp", type="link")["estimate"][0] == pytest.approx(
        -wine.coefficients[0]
    )


def test_residuals(wine):
    for type in ("deviance", "pearson", "response", "quantile", "score", "surrogate"):
        found = wine.resid(type)
        assert found.shape == (72,)
        assert np.isfinite(found).all()
    # the score sums to the pull of the random effects' prior
    score = wine.resid("score")
    group = wine.design.terms[0].codes
    b = wine.ranef["judge"].to_numpy()[:, 0]
    sd = float(wine.varcorr["judge"].sd.iloc[0])
    np.testing.assert_allclose(np.bincount(group, score), b / sd**2, atol=1e-4)


def test_draws_refits_and_files(wine, tmp_path):
    drawn = wine.simulate(2, seed=4)
    assert set(np.unique(drawn)) <= {"1", "2", "3", "4", "5"}
    again = wine.refit(wine.levels[wine.design.y.astype(int)])
    assert again.criterion == pytest.approx(wine.criterion, abs=1e-6)
    with pytest.raises(DataError, match="has the value 9"):
        wine.refit(np.full(72, 9))
    wine.save(tmp_path / "fit")
    for other in (jg.load(tmp_path / "fit"), pickle.loads(pickle.dumps(wine))):
        pd.testing.assert_series_equal(other.thresholds, wine.thresholds)
        pd.testing.assert_frame_equal(
            other.predict(NEW, type="probs", se=True),
            wine.predict(NEW, type="probs", se=True),
            rtol=1e-6,
        )
    assert wine.check(50).ok
    fewer = jg.clmm("rating ~ temp + (1 | judge)", data("wine_rating"))
    assert jg.anova(fewer, wine).df == 1


@pytest.mark.parametrize("name", ["wine_clm_nominal", "wine_clm_scale"])
def test_effects_on_thresholds_and_on_the_scale(name):
    r, d = reference(name), data("wine_rating")
    if name == "wine_clm_nominal":
        fit = jg.clm("rating ~ temp", d, nominal="~ contact")
        alpha = np.array(r["Theta_nominal"]["alpha_mat"])
        np.testing.assert_allclose(fit.thresholds, alpha, atol=1e-4)
        own = fit.threshold_coefficients
        order = [*own.index[::2], *own.index[1::2]]
        error = values(r["se_alpha"])
        np.testing.assert_allclose(own.loc[order, "std_error"], error, rtol=1e-3)
    else:
        fit = jg.clm("rating ~ temp + contact", d, scale="~ temp")
        np.testing.assert_allclose(
            [*fit.fixef["disp"].values()], values(r["fixef_scale"]), atol=1e-4
        )
        np.testing.assert_allclose(
            fit.thresholds.to_numpy()[0], r["thresholds"], atol=1e-4
        )
    assert fit.log_likelihood > r["loglik"] - 1e-6
    np.testing.assert_allclose(
        [*fit.fixef["cond"].values()], values(r["fixef"]), atol=1e-4
    )
    np.testing.assert_allclose(fit.se[: len(r["fixef"])], values(r["se"]), rtol=1e-3)
    P = fit.predict(d.head(10), type="probs", re="population")
    np.testing.assert_allclose(P, r["class_prob_population_first10"], atol=1e-5)
    assert np.isfinite(fit.predict(d.head(3), type="probs", se=True)["se"]).all().all()


def test_nominal_effects_that_are_one_are_proportional_odds():
    """Random effects too: nominal='~ 1' is the model with plain thresholds."""
    d = data("wine_rating")
    plain = jg.clmm("rating ~ temp + contact + (1 | judge)", d)
    parts = jg.clmm("rating ~ temp + contact + (1 | judge)", d, nominal="~ 1")
    assert parts.criterion == pytest.approx(plain.criterion, abs=1e-7)
    np.testing.assert_allclose(
        parts.thresholds.to_numpy()[0], plain.thresholds, atol=1e-5
    )
    one, two = (f.predict(NEW, type="probs", se=True) for f in (plain, parts))
    np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)


# R 4.2, ordinal 2022.11-16: clm(rating ~ temp, nominal = ~ contact, threshold = ...)
STRUCTURED = {
    ("symmetric", None): (
        -87.7636010685,
        [1.0838921063, 3.3839804140, 2.1381712511],
        [-1.4407811464, -1.6306629311, -0.1343777314],
        [2.4756262680],
    ),
    ("symmetric", "~ temp"): (
        -86.7673220244,
        [1.1516620191, 4.3077098347, 2.4256536632],
        [-1.4777662243, -2.2295498368, 0.1122610784],
        [3.0423938957, 0.3632726075],
    ),
    ("symmetric2", None): (
        -101.716140974,
        [0.77110201031, 2.44184003725],
        [0.06580252961, 0.15917031536],
        [0.84218263066],
    ),
    ("equidistant", None): (
        -87.7953348187,
        [-1.0891401210, 2.2067465187],
        [-1.2972204913, -0.1568921884],
        [2.4597849415],
    ),
    ("equidistant", "~ temp"): (
        -87.0077334747,
        [-1.3374760132, 2.6040156946],
        [-1.3966726977, -0.2252830688],
        [2.8884776989, 0.2935552994],
    ),
}


@pytest.mark.parametrize("case", STRUCTURED, ids=lambda x: f"{x[0]} {x[1]}")
def test_structured_thresholds_with_effects(case):
    """Nominal effects on what structured thresholds are made of, as in R."""
    l, first, moved, others = STRUCTURED[case]
    d = data("wine_rating")
    fit = jg.clm(
        "rating ~ temp", d, threshold=case[0], scale=case[1], nominal="~ contact"
    )
    assert fit.log_likelihood == pytest.approx(l, abs=1e-6)
    own = fit.threshold_coefficients["estimate"]
    np.testing.assert_allclose(own.iloc[::2], first, atol=2e-4)
    np.testing.assert_allclose(own.iloc[1::2], moved, atol=2e-4)
    table = fit.coefficient_table()["estimate"]
    rest = table.drop(fit.threshold_coefficients.index)
    np.testing.assert_allclose(rest, others, atol=2e-4)
    theta = fit.thresholds.to_numpy()
    if case[0] == "equidistant":
        np.testing.assert_allclose(np.diff(theta, 2), 0.0, atol=1e-12)
    else:
        np.testing.assert_allclose(theta, (theta.sum(1) / 2)[:, None] - theta[:, ::-1])
    again = pickle.loads(pickle.dumps(fit))
    P = fit.predict(d.head(5), type="probs", re="population")
    np.testing.assert_allclose(
        again.predict(d.head(5), type="probs", re="population"), P
    )
    np.testing.assert_allclose(P.sum(axis=1), 1.0)


def test_a_scale_beside_structured_thresholds_and_standard_errors():
    d = data("wine_rating")
    fit = jg.clm("rating ~ temp", d, threshold="equidistant", scale="~ contact")
    assert fit.log_likelihood == pytest.approx(-93.3410980718, abs=1e-6)
    table = fit.coefficient_table().loc[:, ["estimate", "std_error"]]
    r = {
        "threshold.1~(Intercept)": (-1.58574452678, 0.3666406347),
        "spacing~(Intercept)": (1.90648984425, 0.3368535635),
        "temp[T.warm]": (2.23007240262, 0.5473409090),
        "disp~contact[T.yes]": (-0.02535534504, 0.2685394407),
    }
    assert sorted(table.index) == sorted(r)
    np.testing.assert_allclose(table.loc[list(r)], list(r.values()), atol=2e-4)
    drawn = fit.simulate(3, seed=1)
    assert set(np.unique(drawn)) <= set(fit.levels)


def test_refusals(wine):
    d = data("wine_rating")
    with pytest.raises(NotApplicableError, match="its probabilities"):
        wine.predict(interval="prediction")
    with pytest.raises(NotApplicableError, match="a label, without a standard error"):
        wine.predict(type="class", se=True)
    with pytest.raises(NotApplicableError, match="is not one of 'response'"):
        wine.predict(type="odds")
    for question in (wine.overdispersion, wine.zero_inflation):
        with pytest.raises(NotApplicableError):
            question()
    with pytest.raises(FormulaError, match="leaves the intercept out"):
        jg.clmm("rating ~ 0 + temp + (1 | judge)", d)
    with pytest.raises(ModelError, match="in the formula and in nominal="):
        jg.clm("rating ~ temp", d, nominal="~ temp")
    with pytest.raises(ModelError, match="nothing to estimate"):
        jg.clm("rating ~ temp", d, scale="~ 1")
    with pytest.raises(ModelError, match="does not adapt"):
        jg.clmm("rating ~ temp + (1 | judge)", d, nAGQ=-5)
    with pytest.raises(ModelError, match="for ordered categories"):
        jg.glmm("rating ~ temp", d.assign(rating=1.0), family="poisson", nominal="~ 1")


def responses():
    text = np.array(["low", "mid", "high"] * 8, object)
    return {
        "text": (text, DataError, "has no order|have no order"),
        "one": (np.full(24, 3), ModelError, "one category only"),
        "fractions": (np.linspace(0, 1, 24), DataError, "has fractions"),
        "dates": (
            pd.date_range("2020-01-01", periods=24),
            DataError,
            "holds dates",
        ),
        "many": (np.arange(240) % 130, DataError, "different values, more than"),
    }


@pytest.mark.parametrize("kind", list(responses()))
def test_responses_that_are_no_ordered_categories(kind):
    y, error, words = responses()[kind]
    table = {"y": y, "x": np.arange(len(y)) % 5}
    with pytest.raises(error, match=words):
        jg.clm("y ~ x", table)


def test_categories_that_are_empty_or_in_doubtful_order():
    rng = np.random.default_rng(1)
    y = rng.integers(0, 3, 60)
    x = rng.normal(size=60)
    known = jg.clm("y ~ x", {"y": y, "x": x})
    wide = pd.Categorical.from_codes(y, ["a", "b", "c", "d"], ordered=True)
    with pytest.warns(jg.JaxGLMMWarning, match="no row has the category 'd'"):
        fit = jg.clm("y ~ x", pd.DataFrame({"y": wide, "x": x}))
    assert fit.criterion == pytest.approx(known.criterion, rel=1e-9)
    assert fit.levels.tolist() == ["a", "b", "c"]
    unordered = pd.Categorical.from_codes(y, ["low", "mid", "top"])
    with pytest.warns(jg.JaxGLMMWarning, match="taken in the order 'low', 'mid'"):
        fit = jg.clm("y ~ x", pd.DataFrame({"y": unordered, "x": x}))
    assert fit.criterion == pytest.approx(known.criterion, rel=1e-9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        import polars as pl

        enum = pl.Series(
            [["low", "mid", "top"][k] for k in y], dtype=pl.Enum(["low", "mid", "top"])
        )
        fit = jg.clm("y ~ x", pl.DataFrame({"y": enum, "x": x}))
    assert fit.criterion == pytest.approx(known.criterion, rel=1e-9)


@pytest.mark.parametrize(("scale", "origin"), [(1e-6, 0.0), (1e6, 0.0), (1.0, 2e6)])
def test_units_of_a_covariate_do_not_matter(scale, origin):
    d = data("sim_ord")
    d = d[d["y"].notna()]
    one = jg.clmm("y ~ x + (1 | g)", d)
    two = jg.clmm("y ~ x + (1 | g)", d.assign(x=d["x"] * scale + origin))
    assert two.criterion == pytest.approx(one.criterion, abs=1e-6)
    assert two.coefficients[0] * scale == pytest.approx(one.coefficients[0], rel=1e-5)
    shift = two.coefficients[0] * origin
    close = 1e-5 * max(1.0, abs(shift) * 1e-4)
    np.testing.assert_allclose(two.thresholds - shift, one.thresholds, atol=close)


def test_separation_is_named():
    rng = np.random.default_rng(2)
    n = 90
    f = np.repeat(["a", "b", "c"], n // 3)
    y = np.where(f == "c", 2, rng.integers(0, 3, n))
    table = {"y": y, "f": f, "x": rng.normal(size=n)}
    with pytest.warns(jg.SeparationWarning, match=r"coefficient of f\[T.c\] is infin"):
        fit = jg.clm("y ~ f + x", table)
    assert any("Separation" in text for text in fit.warnings)
    y = (table["x"] > 0.3).astype(int) + (table["x"] > 1.0)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        jg.clm("y ~ x", {"y": y, "x": table["x"]})
    assert any("coefficient of x is infinite" in str(w.message) for w in told)


@pytest.mark.slow
def test_profiles_hold_every_parameter():
    """Limits of R's confint(clm, type = 'profile'), and thresholds refitted by hand."""
    d = data("wine_rating")
    fit = jg.clm("rating ~ temp + contact", d)
    limits = fit.profile().intervals()
    known = [[1.5097627, 3.595225], [0.6157925, 2.492404]]
    np.testing.assert_allclose(
        limits.loc[list(fit.coefficient_names)], known, atol=1e-4
    )
    assert list(limits.index[:4]) == ["1|2", "2|3", "3|4", "4|5"]
    theta = fit.thresholds.to_numpy()
    assert (limits["lower"][:4] < theta).all()
    assert (limits["upper"][:4] > theta).all()
    # at a limit the other parameters' maximum is 3.84 / 2 lower
    from scipy import optimize

    X, y = fit.design.X, fit.design.y.astype(int)

    def loss(free, held):
        gaps, beta = np.exp(free[:3]), free[3:]
        ends = held + np.concatenate([[0.0], np.cumsum(gaps)])
        phi = np.array([ends[1], *free[:3]])
        P = fit.cumulative.probabilities(X @ beta, phi)
        return -2 * np.sum(np.log(P[np.arange(len(y)), y]))

    begin = np.concatenate([fit.estimates.phi[1:], fit.coefficients])
    for end in limits.loc["1|2"]:
        found = optimize.minimize(loss, begin, args=(end,), method="BFGS")
        assert found.fun - fit.criterion == pytest.approx(3.8414588, abs=1e-3)
    even = jg.clm("rating ~ temp", d, link="probit", threshold="equidistant")
    assert list(even.profile().intervals().index) == ["temp[T.warm]"]


def test_type_three_tests_do_not_depend_on_the_coding():
    d = data("wine_rating")
    plain = jg.clm("rating ~ temp * contact", d)
    coded = jg.clm(
        "rating ~ temp * contact", d, contrasts={"temp": "sum", "contact": "sum"}
    )
    one, two = plain.anova(), coded.anova()
    z = (coded.coefficients / coded.se) ** 2
    np.testing.assert_allclose(two["statistic"], z, rtol=1e-6)
    np.testing.assert_allclose(one["statistic"], z, rtol=1e-5)


def test_infinite_responses_are_refused():
    d = data("wine_rating").assign(y=np.inf)
    with pytest.raises(DataError, match="infinite"):
        jg.clm("y ~ temp", d)


def test_no_icc_beside_a_scale_effect():
    rng = np.random.default_rng(0)
    d = {"y": rng.integers(1, 4, 60), "x": rng.normal(size=60), "g": np.arange(60) // 5}
    fit = jg.clmm("y ~ x + (1 | g)", d, scale="~ x")
    for ask in (lambda: fit.icc, lambda: fit.r2()):
        with pytest.raises(jg.NotApplicableError, match="scale="):
            ask()
