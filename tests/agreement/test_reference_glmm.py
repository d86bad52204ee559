"""Generalised linear mixed models against lme4, glmmTMB and numerical integration.

The log-likelihood is at least the best that any program found, to 1e-5 of its size;
estimates agree to 1e-4 relative, standard errors to 1e-3, modes to 1e-4 standard
deviations. ``tests/reference/README.md`` says what was computed. The last tests here
change a reference a little and ask that the comparison notices.
"""

import copy
import functools

import jax
import numpy as np
import pytest
from cases import (
    CBPP,
    EXACT,
    GENERALISED,
    LRT_GENERALISED,
    data,
    fit,
    r_factor,
    r_levels,
    r_name,
    reference,
)
from comparison import by_term, close, close_by_name, fixed, theta_by_name
from doors import mode_at
from doors import scale as scaled

import jaxglmm as jg

pytestmark = pytest.mark.reference

ESTIMATE, ERROR = 1e-4, 1e-3
BOUNDARY = {
    "epil2_nbinom2_slope"
}  # correlation -1: the likelihood has a flat direction


def cases(wanted=lambda ref: True, among=GENERALISED):
    chosen = [c for c in among if wanted(reference(c.reference))]
    return pytest.mark.parametrize("case", chosen, ids=str)


def has(key):
    return cases(lambda ref: key in ref)


def lme4s(ref):
    return ref["software"] == "lme4"


def on_the_boundary(case):
    return case.reference in BOUNDARY


# Comparisons ------------------------------------------------------------------------


def best(ref):
    """The log-likelihood to reach, with all constants."""
    return ref.get("loglik_full", ref.get("loglik_best", ref["loglik"]))


def compare_likelihood(case, f, ref):
    ll = best(ref)
    assert f.log_likelihood >= ll - 1e-5 * max(1, abs(ll))
    assert f.log_likelihood <= ll + 1e-4, "far better than R: another likelihood"
    assert f.criterion == pytest.approx(-2 * f.log_likelihood, rel=1e-12)
    assert f.converged


def compare_counts(case, f, ref):
    assert f.nobs == ref["nobs"]
    assert f.npar == ref["npar"]
    if "ngroups" in ref:
        ours = {r_factor(k, ref["ngroups"]): v for k, v in f.ngroups.items()}
        assert ours == ref["ngroups"]
    if "AIC" in ref:
        assert f.df_resid == ref["df_residual"]
        constant = -2 * (best(ref) - ref["loglik"])
        close(f.aic, ref["AIC"] + constant, 1e-6)
        close(f.bic, ref["BIC"] + constant, 1e-6)


def compare_coefficients(case, f, ref):
    close_by_name(fixed(f, f.coefficients), ref["fixef"], ESTIMATE)
    if "se" in ref:
        close_by_name(fixed(f, f.se), ref["se"], ERROR)
        z = {name: ref["fixef"][name] / se for name, se in ref["se"].items()}
        close_by_name(fixed(f, f.z_values), z, ESTIMATE + ERROR)


def compare_covariance(case, f, ref):
    ours = fixed(f, f.se)
    order = [list(ours).index(n) for n in ref["vcov"]["names"]]
    vcov = np.asarray(f.vcov, float)[np.ix_(order, order)]
    theirs = np.array(ref["vcov"]["matrix"])
    size = np.sqrt(np.outer(np.diag(theirs), np.diag(theirs)))
    close(vcov / size, theirs / size, 0.0, ERROR)


def compare_variances(case, f, ref):
    for label, ours, theirs in by_term(f, ref):
        record = ref["varcorr"][theirs]
        sd = np.array(record["sd"])
        if on_the_boundary(case):
            close(ours.cov, record["cov"], ESTIMATE, 1e-4 * sd.max() ** 2, label)
            continue
        close(ours.sd, sd, ESTIMATE, 0.0, label)
        close(ours.corr, record["corr"], ESTIMATE, ESTIMATE, label)
        close(ours.cov, record["cov"], 2 * ESTIMATE, 0.0, label)


def compare_theta(case, f, ref):
    largest = max(abs(v) for v in ref["theta"].values())
    close_by_name(theta_by_name(f, ref), ref["theta"], ESTIMATE, 1e-5 * largest)


def compare_dispersion(case, f, ref):
    if "dispersion_phi" in ref:
        close(f.dispersion, ref["dispersion_phi"], ESTIMATE)
        close(f.sigma, np.sqrt(ref["dispersion_phi"]), ESTIMATE)
    else:
        close(f.sigma, ref["sigma"], ESTIMATE)


def compare_modes(case, f, ref):
    sd = {
        (theirs.split(".")[0], r_name(name)): value
        for _, ours, theirs in by_term(f, ref)
        for name, value in ours.sd.items()
    }
    for factor, modes in f.ranef.items():
        r = r_factor(factor, ref["ranef"])
        theirs = ref["ranef"][r]
        assert len(modes) == theirs["total_levels"]
        rows = places(modes, factor, r, theirs)
        columns = [r_name(c) for c in modes.columns]
        assert columns == theirs["names"]
        largest = max(sd[r, name] for name in columns)
        for k, name in enumerate(columns):
            expected = np.array(theirs["values"])[:, k]
            size = largest if on_the_boundary(case) else sd[r, name]
            close(modes.iloc[rows, k], expected, 0.0, 1e-4 * size, f"{r} {name}")


def compare_conditional_variances(case, f, ref):
    """lme4's: given beta and theta."""
    for factor, modes in f.ranef.items():
        r = r_factor(factor, ref["ranef"])
        rows = places(modes, factor, r, ref["ranef"][r])
        ours = np.diagonal(f.ranef_cov[factor], axis1=1, axis2=2)[rows]
        close(ours, ref["ranef"][r]["condvar"], ERROR, 0.0, r)


def compare_rows(case, f, ref):
    """Means and residuals of the first rows; R's fitted binomial is a proportion."""
    close(f.fitted_values[:20], ref["fitted_first20"], 2e-4)
    kind = ref["residuals_type"]
    close(f.resid(kind)[:20], ref["residuals_first20"], 1e-3, 1e-4, kind)
    if "residuals_pearson_first20" in ref:
        pearson = ref["residuals_pearson_first20"]
        close(f.resid("pearson")[:20], pearson, 1e-3, 1e-4, "pearson")
    if lme4s(ref):
        close(f.deviance, ref["deviance"], 1e-4)


def places(modes, factor, r, theirs):
    """Positions of R's levels among ours."""
    place = {v: i for i, v in enumerate(r_levels(modes.index, factor, r))}
    return [place[v] for v in theirs["levels"]]


# Laplace and quadrature -------------------------------------------------------------


def run(compare, case):
    compare(case, fit(case), reference(case.reference))


@cases()
def test_likelihood(case):
    run(compare_likelihood, case)


@cases()
def test_counts_and_criteria(case):
    run(compare_counts, case)


@cases()
def test_coefficients(case):
    run(compare_coefficients, case)


@has("vcov")
def test_covariance(case):
    run(compare_covariance, case)


@cases()
def test_variances(case):
    run(compare_variances, case)


@has("theta")
def test_theta(case):
    """lme4's order within a term and its signs: a diagonal that is not negative."""
    run(compare_theta, case)


@cases()
def test_dispersion(case):
    run(compare_dispersion, case)


@has("ranef")
def test_modes(case):
    run(compare_modes, case)


@cases(lambda ref: lme4s(ref) and "ranef" in ref)
def test_conditional_variances(case):
    run(compare_conditional_variances, case)


@cases(lambda ref: not lme4s(ref) and "ranef" in ref and ref["name"] not in BOUNDARY)
def test_conditional_variances_with_parameters(case):
    """glmmTMB's condvar has the uncertainty of the parameters in it: J V J' more, J
    the derivative of the modes (here by central differences). On the boundary its V
    does not exist."""
    f, ref = fit(case), reference(case.reference)
    ((factor, ours),) = f.ranef_cov.items()
    with jax.enable_x64(True):
        J, V = mode_derivative(f), f.parameter_covariance
    assert ours.shape[1:] == (1, 1)
    total = ours[:, 0, 0] + np.einsum("jk,kl,jl->j", J, V, J)
    theirs = ref["ranef"][factor]
    rows = places(f.ranef[factor], factor, factor, theirs)
    close(total[rows], np.array(theirs["condvar"])[:, 0], ERROR, 0.0, factor)


def mode_derivative(f):
    """d b / d psi, (J, k), of a model with one random intercept."""
    problem, (psi, _) = f.engine.base, f.internal()
    levels = len(next(iter(f.ranef.values())))

    def b(x):
        (values,) = scaled(problem.lambdas(problem.split(x)[1]), mode_at(problem, x))
        return np.asarray(values)[0, 0, :levels]

    steps = 1e-5 * np.eye(len(psi))
    return np.stack([(b(psi + h) - b(psi - h)) / 2e-5 for h in steps], axis=1)


@cases(lambda ref: "fitted_first20" in ref)
def test_rows(case):
    run(compare_rows, case)


@has("glmmTMB")
def test_second_program(case):
    """glmmTMB fitted lme4's cases too."""
    f, ref = fit(case), reference(case.reference)["glmmTMB"]
    close_by_name(fixed(f, f.coefficients), ref["fixef"], 2e-4)
    assert f.log_likelihood >= ref["loglik"] - 1e-5 * abs(ref["loglik"])


def has_error_of_dispersion(ref):
    names = ref.get("vcov_par", {}).get("names", [])
    return bool({"log_phi", "betad"} & set(names)) and ref["name"] not in BOUNDARY


@cases(has_error_of_dispersion)
def test_error_of_dispersion(case):
    """Standard error of log dispersion: our phi, glmmTMB's betad."""
    f, ref = fit(case), reference(case.reference)
    joint = ref["vcov_par"]
    k = joint["names"].index("log_phi" if "dispersion_phi" in ref else "betad")
    V = f.parameter_covariance
    close(np.sqrt(V[-1, -1]), np.sqrt(joint["matrix"][k][k]), ERROR)


# Exact, by numerical integration ----------------------------------------------------


@pytest.mark.parametrize("case", EXACT, ids=str)
def test_quadrature_is_exact(case):
    f, ref = fit(case), reference(case.reference)
    ref = ref.get("exact", ref)
    tol = 1e-6 if case.reference == "cbpp_exact" else 2e-5
    close(f.log_likelihood, ref["loglik"], 0.0, 1e-9 * abs(ref["loglik"]))
    close_by_name(fixed(f, f.coefficients), ref["fixef"], tol)
    (record,) = f.varcorr.values()
    close(record.sd, [ref["sd"]], tol)
    if "dispersion_phi" in ref:
        close(f.dispersion, ref["dispersion_phi"], tol)
    if "se" in ref:
        close_by_name(fixed(f, f.se), ref["se"], ERROR)


# Options ----------------------------------------------------------------------------

# -2 log-likelihood of cbpp, lme4 1.1-31 (bobyqa, rhoend 1e-9, tolPwrss 1e-12) and
# glmmTMB 1.1.5: they differ by the information that they put into log|M|
BY_LINK = {
    ("probit", "expected"): 185.24245,
    ("probit", "observed"): 185.16668,
    ("cloglog", "expected"): 183.60408,
    ("cloglog", "observed"): 183.51600,
    ("logit", "expected"): 184.05256,
    ("logit", "observed"): 184.05256,
}


@functools.cache
def by_link(link, hessian):
    return jg.glmm(
        CBPP,
        data("cbpp"),
        family=jg.Binomial(link=link),
        method=jg.Laplace(hessian=hessian),
    )


@pytest.mark.parametrize(("link", "hessian"), BY_LINK)
def test_information(link, hessian):
    f = by_link(link, hessian)
    close(f.criterion, BY_LINK[link, hessian], 0.0, 1e-5)


def test_information_of_lme4():
    """Laplace with expected information: theta of lme4 1.1-31."""
    close(by_link("probit", "expected").theta, [0.33799176], ESTIMATE)
    close(by_link("cloglog", "expected").theta, [0.58668732], ESTIMATE)


# Array form -------------------------------------------------------------------------


def design(f):
    """Design and labels of a fitted formula, as a user of arrays has them."""
    terms = f.design.terms
    return f.design.X, {t.factor: t.levels[t.codes] for t in terms}


def same_fit(f, g):
    close(g.log_likelihood, f.log_likelihood, 1e-11)
    close(g.coefficients, f.coefficients, 1e-7)
    close(g.se, f.se, 1e-6)
    close(g.theta, f.theta, 1e-6)
    for a, b in zip(f.ranef.values(), g.ranef.values(), strict=True):
        assert sorted(map(str, a.index)) == sorted(map(str, b.index))
        close(b.loc[list(a.index)], a, 1e-6, 1e-8)


def case_of(name):
    return next(c for c in GENERALISED if c.reference == name)


@pytest.mark.parametrize("form", ["two columns", "trials", "proportions", "weights"])
def test_arrays_binomial(form):
    f, cbpp = fit(case_of("cbpp_laplace")), data("cbpp")
    X, groups = design(f)
    k, n = cbpp.incidence.to_numpy(), cbpp["size"].to_numpy()
    response, options = {
        "two columns": (np.column_stack([k, n - k]), {}),
        "trials": (k, {"trials": n}),
        "proportions": (k / n, {"trials": n}),
        "weights": (k / n, {"weights": n}),
    }[form]
    same_fit(f, jg.glmm(response, X, groups, **options))


def test_arrays_slopes():
    f, epil2 = fit(case_of("epil2_poisson_slope")), data("epil2")
    X, groups = design(f)
    g = jg.glmm(
        epil2.y.to_numpy(),
        X,
        groups,
        family="poisson",
        random_effects={"subject": ["1", "Visit"]},
        random_data={"Visit": epil2.Visit.to_numpy()},
    )
    same_fit(f, g)


def test_arrays_crossed():
    f, verbal = fit(case_of("verbagg_laplace")), data("VerbAgg")
    X, groups = design(f)
    same_fit(f, jg.glmm(verbal.y.to_numpy(), X, groups))


def test_arrays_dispersion():
    case = case_of("salamanders_nbinom2")
    f = fit(case)
    X, groups = design(f)
    count = data(case.data)["count"].to_numpy()
    g = jg.glmm(count, X, groups, family="nbinom2")
    same_fit(f, g)
    close(g.dispersion, f.dispersion, 1e-6)


# Tests of models --------------------------------------------------------------------


@pytest.mark.parametrize("name", LRT_GENERALISED)
def test_likelihood_ratio(name):
    ref, (dataset, models) = reference(name), LRT_GENERALISED[name]
    fits = [jg.glmm(text, data(dataset), family=family) for text, family in models]
    for f, theirs in zip(fits, ref["models"], strict=True):
        close(f.log_likelihood, theirs["loglik"], 1e-7)
        close(f.aic, theirs["AIC"], 1e-7)
        close(f.bic, theirs["BIC"], 1e-7)
        assert f.npar == theirs["npar"]
    statistic = -2 * (fits[0].log_likelihood - fits[1].log_likelihood)
    close([statistic], ref["chisq"], 1e-5)
    assert [fits[1].npar - fits[0].npar] == ref["df"]


# The comparisons can fail -----------------------------------------------------------


def change(*path, by):
    """A function that multiplies one number of a reference by 1 + ``by``."""

    def apply(ref):
        at = ref
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] *= 1 + by

    return apply


CHANGED = {
    "likelihood": (compare_likelihood, change("loglik_best", by=-3e-5)),
    "better by far": (compare_likelihood, change("loglik_best", by=3e-5)),
    "AIC": (compare_counts, change("AIC", by=1e-5)),
    "BIC": (compare_counts, change("BIC", by=1e-5)),
    "coefficient": (compare_coefficients, change("fixef", "Visit", by=3e-4)),
    "standard error": (compare_coefficients, change("se", "Visit", by=3e-3)),
    "covariance": (compare_covariance, change("vcov", "matrix", 1, 2, by=1e-1)),
    "sd": (compare_variances, change("varcorr", "subject", "sd", 1, by=3e-4)),
    "correlation": (
        compare_variances,
        change("varcorr", "subject", "corr", 1, 0, by=1e-1),
    ),
    "theta": (compare_theta, change("theta", "subject.Visit", by=3e-4)),
    "mode": (compare_modes, change("ranef", "subject", "values", 3, 1, by=1e-2)),
    "conditional variance": (
        compare_conditional_variances,
        change("ranef", "subject", "condvar", 3, 1, by=3e-3),
    ),
    "fitted": (compare_rows, change("fitted_first20", 3, by=1e-3)),
    "deviance residual": (compare_rows, change("residuals_first20", 0, by=1e-2)),
    "Pearson residual": (
        compare_rows,
        change("residuals_pearson_first20", 0, by=1e-2),
    ),
    "deviance": (compare_rows, change("deviance", by=3e-4)),
}


@pytest.mark.parametrize("what", CHANGED)
def test_a_changed_reference_is_noticed(what):
    case = case_of("epil2_poisson_slope")
    compare, spoil = CHANGED[what]
    ref = copy.deepcopy(reference(case.reference))
    compare(case, fit(case), ref)
    spoil(ref)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        compare(case, fit(case), ref)


def test_a_changed_dispersion_is_noticed():
    case = case_of("salamanders_nbinom2")
    ref = copy.deepcopy(reference(case.reference))
    compare_dispersion(case, fit(case), ref)
    ref["sigma"] *= 1.0003
    with pytest.raises(pytest.fail.Exception):
        compare_dispersion(case, fit(case), ref)
