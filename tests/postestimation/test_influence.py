"""Hat values, Cook's distances, levels and rows left out, variance inflation."""

import warnings

import matplotlib
import numpy as np
import pytest
from choice_cases import KNOWN, made

import jaxglmm as jg

matplotlib.use("Agg")

WITH_LEVELS = {
    "sleepstudy": "Subject",
    "machines": "Worker",
    "orthodont": "Subject",
    "pastes": "batch",
    "penicillin": "sample",
    "dyestuff2": "Batch",
}
FORMULA = "Reaction ~ Days + (Days | Subject)"


def quietly(function, *args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jg.JaxGLMMWarning)
        return function(*args, **options)


@pytest.mark.parametrize("name", [k for k in KNOWN if "hat" in KNOWN[k]])
def test_rows_are_those_of_lme4(name):
    fit, known = made(name), KNOWN[name]
    np.testing.assert_allclose(fit.hat_values(), known["hat"], rtol=1e-4)
    cook = np.array(known["cook"], float)
    np.testing.assert_allclose(fit.cooks_distance(), cook, rtol=1e-4, atol=1e-9)
    studentised = fit.studentised_residuals()
    np.testing.assert_allclose(studentised, known["rstudent"], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("name", "by"), WITH_LEVELS.items())
def test_levels_left_out_are_those_of_lme4(name, by):
    found = quietly(made(name).influence, by)
    known = KNOWN[name][f"levels_{by}"]
    labels = [str(x) for x in found.labels]
    order = [labels.index(x) for x in known["levels"]]
    scale = np.abs(found.estimates)
    gap = (found.coefficients[order] - np.array(known["beta"])) / scale
    assert np.abs(gap).max() < 1e-6
    cook = np.array(known["cook"], float)
    np.testing.assert_allclose(found.cook[order], cook, rtol=1e-4, atol=1e-8)
    if known["dfbetas"]:
        dfbetas = np.array(known["dfbetas"])
        np.testing.assert_allclose(found.dfbetas[order], dfbetas, rtol=1e-4, atol=1e-4)
    assert quietly(lambda: found.table).shape[0] == len(labels)


def left_out(fit, data, column, level, **options):
    return quietly(
        jg.lmm, fit.formula, data[data[column] != level], reml=fit.reml, **options
    )


@pytest.mark.parametrize("name", ["sleepstudy", "orthodont"])
def test_every_number_is_that_of_the_fit_without(name):
    fit = made(name)
    data = jg.datasets.load("sleepstudy" if name == "sleepstudy" else "Orthodont")
    found = fit.influence("Subject")
    for i in (0, len(found) - 1):
        one = left_out(fit, data, "Subject", found.labels[i])
        np.testing.assert_allclose(found.coefficients[i], one.coefficients, rtol=1e-6)
        np.testing.assert_allclose(found.se[i], one.se, rtol=1e-5)
        assert found.variances["sigma"].iloc[i] == pytest.approx(one.sigma, rel=1e-6)
        ratio = np.linalg.det(one.vcov) / np.linalg.det(fit.vcov)
        assert found.covratio[i] == pytest.approx(ratio, rel=1e-4)
    assert found.converged.all()


def test_weights_offsets_and_gaps():
    data = jg.datasets.load("sleepstudy")
    data.loc[[5, 100], "Reaction"] = np.nan
    rng = np.random.default_rng(0)
    w = np.where(np.arange(180) % 17 == 3, 0.0, rng.uniform(0.5, 2, 180))
    data = data.assign(w=w, o=rng.normal(size=180))
    given = {"weights": "w", "offset": "o"}
    fit = quietly(jg.lmm, "Reaction ~ Days + (1 | Subject)", data, **given)
    found = fit.influence("Subject")
    one = left_out(fit, data, "Subject", found.labels[4], **given)
    np.testing.assert_allclose(found.coefficients[4], one.coefficients, rtol=1e-6)
    np.testing.assert_allclose(found.se[4], one.se, rtol=1e-5)
    assert found.variances["sigma"].iloc[4] == pytest.approx(one.sigma, rel=1e-6)
    ratio = np.linalg.det(one.vcov) / np.linalg.det(fit.vcov)
    assert found.covratio[4] == pytest.approx(ratio, rel=1e-4)
    rows = fit.influence()
    assert len(rows) == 178
    assert np.isnan(rows.dfbetas[fit.design.weights == 0]).all()


def test_variables_and_labels_can_be_left_out():
    data = jg.datasets.load("sleepstudy")
    fit = made("sleepstudy")
    found = fit.influence("Days")
    one = left_out(fit, data, "Days", found.labels[3])
    np.testing.assert_allclose(found.coefficients[3], one.coefficients, rtol=1e-6)
    labels = np.repeat(["a", "b", "c"], 60)
    given = fit.influence(labels)
    assert given.labels.tolist() == ["a", "b", "c"]
    one = quietly(jg.lmm, FORMULA, data[labels != "b"])
    np.testing.assert_allclose(given.coefficients[1], one.coefficients, rtol=1e-6)
    ratio = np.linalg.det(one.vcov) / np.linalg.det(fit.vcov)
    assert given.covratio[1] == pytest.approx(ratio, rel=1e-4)


def test_rows_at_covariances_held():
    """Against generalised least squares without the row, by dense algebra."""
    fit = made("sleepstudy")
    d = fit.design
    term = d.terms[0]
    same = term.codes[:, None] == term.codes
    psi = np.asarray(fit.varcorr["Subject"].cov)
    V = same * (term.values @ psi @ term.values.T) + fit.sigma**2 * np.eye(d.n)
    found = fit.influence()
    for i in (0, 57):
        rest = np.arange(d.n) != i
        X, W = d.X[rest], np.linalg.inv(V[np.ix_(rest, rest)])
        C = np.linalg.inv(X.T @ W @ X)
        beta = C @ X.T @ W @ d.y[rest]
        np.testing.assert_allclose(found.coefficients[i], beta, rtol=1e-8)
        np.testing.assert_allclose(found.se[i], np.sqrt(np.diag(C)), rtol=1e-8)
        ratio = np.linalg.det(C) / np.linalg.det(fit.vcov)
        assert found.covratio[i] == pytest.approx(ratio, rel=1e-7)


def test_rows_left_out_exactly():
    fit = made("sleepstudy")
    exact = fit.influence("row", refit=True)
    one = quietly(jg.lmm, FORMULA, jg.datasets.load("sleepstudy").drop(index=57))
    np.testing.assert_allclose(exact.coefficients[57], one.coefficients, rtol=1e-6)
    assert "covratio" not in exact.table  # that takes 180 fits
    held = fit.influence()
    assert "covratio" in held.table
    np.testing.assert_allclose(exact.dfbetas, held.dfbetas, atol=0.02)
    np.testing.assert_allclose(exact.hat, held.hat)


def test_generalised_levels_and_rows():
    fit, data = made("cbpp"), jg.datasets.load("cbpp")
    found = fit.influence("herd")
    level = found.labels[4]
    one = jg.glmm(fit.formula, data[data["herd"] != level])
    np.testing.assert_allclose(found.coefficients[4], one.coefficients, rtol=1e-4)
    np.testing.assert_allclose(found.se[4], one.se, rtol=1e-3)
    ratio = np.linalg.det(one.vcov) / np.linalg.det(fit.vcov)
    assert found.covratio[4] == pytest.approx(ratio, rel=1e-3)
    known = KNOWN["cbpp"]["levels_herd"]  # R's refits stop earlier than ours
    order = [found.labels.tolist().index(x) for x in known["levels"]]
    np.testing.assert_allclose(found.cook[order], known["cook"], rtol=0.05)
    hat = fit.hat_values()
    assert ((hat > 0) & (hat < 1)).all()
    assert 4 < hat.sum() < 4 + 15
    assert np.isfinite(fit.cooks_distance()).all()


def test_hat_values_of_a_generalised_model_without_effects():
    data = jg.datasets.load("cbpp")
    fit = jg.glmm("cbind(incidence, size - incidence) ~ period", data)
    X, p = fit.design.X, fit.fitted_values
    w = data["size"].to_numpy() * p * (1 - p)
    C = np.linalg.inv(X.T @ (w[:, None] * X))
    hat = w * np.sum(X @ C * X, axis=1)
    np.testing.assert_allclose(fit.hat_values(), hat, rtol=1e-6)


def test_a_level_without_which_a_coefficient_is_gone():
    fit = made("machines")
    data = jg.datasets.load("Machines")
    found = quietly(fit.influence, "Machine")
    at = found.labels.tolist().index("B")
    assert np.isnan(found.coefficients[at]).any()
    assert np.isnan(found.cook[at])
    other = found.labels.tolist().index("C")
    one = quietly(
        jg.lmm,
        "score ~ Machine + (1 | Worker) + (1 | Worker:Machine)",
        data[data["Machine"] != "C"],
        reml=False,
    )
    kept = np.isfinite(found.coefficients[other])
    mine = found.coefficients[other][kept]
    np.testing.assert_allclose(mine, one.coefficients, rtol=1e-5)
    assert "Influence of 3 levels" in repr(found)


def test_a_level_with_one_row_and_another_scale():
    rng = np.random.default_rng(3)
    g = np.repeat(np.arange(12), [1, 5, 4, 6, 5, 5, 1, 5, 5, 3, 6, 7])
    x = 1e6 + rng.normal(size=len(g))
    y = 1e-6 * (rng.normal(size=12)[g] + 0.5 * (x - 1e6) + rng.normal(size=len(g)))
    data = {"y": y, "x": x, "g": [f"g{k}" for k in g]}
    fit = jg.lmm("y ~ x + (1 | g)", data)
    found = fit.influence("g")
    for level in ("g0", "g6", "g3"):
        rest = np.array(data["g"]) != level
        part = {k: np.asarray(v)[rest] for k, v in data.items()}
        one = quietly(jg.lmm, fit.formula, part)
        i = found.labels.tolist().index(level)
        np.testing.assert_allclose(found.coefficients[i], one.coefficients, rtol=1e-5)
        assert found.variances["sigma"].iloc[i] == pytest.approx(one.sigma, rel=1e-5)


def test_what_has_no_influence_says_so():
    fit = made("sleepstudy")
    with pytest.raises(jg.NotApplicableError, match="none of the model"):
        fit.influence("Sbject")
    with pytest.raises(jg.NotApplicableError, match="rows alone"):
        fit.influence("Subject", refit=False)
    with pytest.raises(jg.NotApplicableError, match="it takes three"):
        fit.influence(np.repeat([1, 2], 90))
    with pytest.raises(jg.NotApplicableError, match="there are none"):
        jg.lmm(
            "Reaction ~ 0 + (1 | Subject)", jg.datasets.load("sleepstudy")
        ).influence()
    with pytest.raises(jg.NotApplicableError, match="independent"):
        jg.lmm(
            "Reaction ~ Days",
            jg.datasets.load("sleepstudy"),
            residual="ar1(Days | Subject)",
        ).hat_values()


def test_correlated_residuals_leave_levels_out_one_by_one():
    data = jg.datasets.load("sleepstudy")
    options = {"residual": "ar1(Days | Subject)"}
    fit = jg.lmm("Reaction ~ Days", data, **options)
    found = fit.influence("Subject")
    one = jg.lmm("Reaction ~ Days", data[data["Subject"] != "309"], **options)
    i = found.labels.tolist().index("309")
    np.testing.assert_allclose(found.coefficients[i], one.coefficients, rtol=1e-5)


# Predictors --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["orthodont", "machines", "cbpp"])
def test_variance_inflation(name):
    found = made(name).vif("coefficient")
    np.testing.assert_allclose(found["vif"], KNOWN[name]["vif"], rtol=1e-4)


def test_terms_of_several_columns_have_one_factor():
    data = jg.datasets.load("sleepstudy")
    rng = np.random.default_rng(1)
    data = data.assign(part=np.tile(["a", "b", "c"], 60), x=rng.normal(size=180))
    data["x"] += data["part"].map({"a": 0.0, "b": 1.0, "c": 2.0})
    fit = jg.lmm("Reaction ~ part + x + Days + (1 | Subject)", data)
    table = fit.vif()
    assert table["df"].to_dict() == {"part": 2, "x": 1, "Days": 1}
    R = np.asarray(fit.vcov)[1:, 1:]
    R = R / np.sqrt(np.outer(np.diag(R), np.diag(R)))
    det = np.linalg.det
    expected = det(R[:2, :2]) * det(R[2:, 2:]) / det(R)
    assert table.loc["part", "vif"] == pytest.approx(expected)
    assert table.loc["part", "inflation"] == pytest.approx(expected**0.25)
    with pytest.raises(jg.NotApplicableError, match="beside the intercept"):
        made("pastes").vif()


def test_condition_numbers():
    X = made("sleepstudy").design.X
    unit = X / np.linalg.norm(X, axis=0)
    assert made("sleepstudy").condition_number() == pytest.approx(np.linalg.cond(unit))


# Figures -----------------------------------------------------------------------------


def test_figures_of_influence():
    import matplotlib.pyplot as plt

    fit = made("sleepstudy")
    left, right = fit.plot.influence("Subject", n=10)
    assert left.get_yticklabels()[0].get_text() == "309"
    assert len(left.get_yticklabels()) == 10
    assert {t.get_text() for t in right.get_yticklabels()} == {"(Intercept)", "Days"}
    assert any(t.get_text() == "335" for t in right.texts)
    _, axes = plt.subplots(1, 2)
    drawn = fit.plot.influence(fit.influence(), axes=axes)
    assert drawn[0] is axes[0]
    with pytest.raises(jg.NotApplicableError, match="n=0"):
        fit.plot.influence("Subject", n=0)
    plt.close("all")


def test_levels_left_out_of_a_model_with_a_dispersion_formula():
    data = jg.datasets.load("sleepstudy")
    formula = "Reaction ~ Days + (1 | Subject)"
    fit = jg.lmm(formula, data, dispersion="~ Days")
    found = fit.influence("Subject")
    assert found.converged.all()
    one = jg.lmm(formula, data[data["Subject"] != found.labels[2]], dispersion="~ Days")
    np.testing.assert_allclose(found.coefficients[2], one.coefficients, rtol=1e-5)
    np.testing.assert_allclose(found.se[2], one.se, rtol=1e-4)
