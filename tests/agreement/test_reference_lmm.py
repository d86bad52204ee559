"""Linear mixed models against lme4, lmerTest, pbkrtest and statsmodels.

Estimates agree to 1e-4 relative, and the criterion is at least as good as the best that
any optimiser found (to 1e-6); degrees of freedom by Satterthwaite and by Kenward and
Roger to 1e-4, profile intervals to 1e-3. ``tests/reference/README.md`` says what was
computed.
"""

import numpy as np
import pytest
from cases import (
    LME4,
    LRT,
    STATSMODELS,
    data,
    fit,
    r_factor,
    r_levels,
    r_name,
    reference,
)
from comparison import by_term, close, close_by_name, fixed, theta_by_name

import jaxglmm as jg

pytestmark = pytest.mark.reference


def having(key, cases=LME4):
    """The cases whose reference has this entry."""
    return pytest.mark.parametrize(
        "case", [c for c in cases if key in reference(c.reference)], ids=str
    )


every = having("fixef")


def tolerance(case):
    return 1e-3 if reference(case.reference).get("singular") else 1e-4


# Fit --------------------------------------------------------------------------------


@every
def test_criterion(case):
    f, ref = fit(case), reference(case.reference)
    best, ll = ref["loglik_best"], f.log_likelihood
    assert ll >= best - 1e-6 * max(1, abs(best))
    assert ll <= best + 1e-3, "far better than R means another likelihood"
    assert f.criterion == pytest.approx(-2 * ll, rel=1e-12)
    assert f.converged
    assert f.is_singular == ref["singular"]


@every
def test_coefficients(case):
    f, ref = fit(case), reference(case.reference)
    tol, se = tolerance(case), ref["se"]
    # a coefficient near zero is judged by its standard error
    close_by_name(
        fixed(f, f.coefficients),
        ref["fixef"],
        tol,
        {k: 1e-4 * v for k, v in se.items()},
    )
    close_by_name(fixed(f, f.se), se, tol)
    order = [list(fixed(f, f.se)).index(n) for n in ref["vcov"]["names"]]
    vcov = np.asarray(f.vcov, float)[np.ix_(order, order)]
    scale = np.sqrt(np.outer(np.diag(vcov), np.diag(vcov)))
    close(vcov / scale, np.array(ref["vcov"]["matrix"]) / scale, tol, tol)


@every
def test_variances(case):
    f, ref = fit(case), reference(case.reference)
    tol = tolerance(case)
    close(f.sigma, ref["sigma"], tol)
    for label, ours, theirs in by_term(f, ref):
        sd = np.array(ref["varcorr"][theirs]["sd"])
        close(ours.sd, sd, tol, 1e-4 * ref["sigma"] * (sd == 0), label)
        if (sd > 0).all():
            close(ours.corr, ref["varcorr"][theirs]["corr"], tol, tol, label)
            cov = np.array(ref["varcorr"][theirs]["cov"])
            close(ours.cov, cov, 2 * tol, tol * np.outer(sd, sd).max(), label)


@every
def test_theta(case):
    """lme4's order within a term and its signs: a diagonal that is not negative."""
    f, ref = fit(case), reference(case.reference)
    ours = theta_by_name(f, ref)
    scale = max(abs(v) for v in ref["theta"].values())
    close_by_name(ours, ref["theta"], tolerance(case), 1e-4 * max(scale, 1))


@every
def test_counts_and_criteria(case):
    f, ref = fit(case), reference(case.reference)
    assert f.nobs == ref["nobs"]
    assert f.npar == ref["npar"]
    assert f.df_resid == ref["df_residual"]
    ours = {r_factor(k, ref["ngroups"]): v for k, v in f.ngroups.items()}
    assert ours == ref["ngroups"]
    close(f.log_likelihood, ref["loglik"], 1e-6)
    close(f.aic, ref["AIC"], 1e-6)
    close(f.bic, ref["BIC"], 1e-6)


@every
def test_fitted_values(case):
    f, ref = fit(case), reference(case.reference)
    close(f.fitted_values[:20], ref["fitted_first20"], tolerance(case))
    close(f.residuals[:20], ref["residuals_first20"], 0.0, 1e-4 * ref["sigma"])


@every
def test_random_effects(case):
    f, ref = fit(case), reference(case.reference)
    sd = {
        (theirs.split(".")[0], r_name(name)): value
        for _, ours, theirs in by_term(f, ref)
        for name, value in ours.sd.items()
    }
    for factor, modes in f.ranef.items():
        r = r_factor(factor, ref["ranef"])
        theirs = ref["ranef"][r]
        assert len(modes) == theirs["total_levels"]
        place = {v: i for i, v in enumerate(r_levels(modes.index, factor, r))}
        rows = [place[v] for v in theirs["levels"]]
        columns = [r_name(c) for c in modes.columns]
        assert columns == theirs["names"]
        variances = np.diagonal(f.ranef_cov[factor], axis1=1, axis2=2)[rows]
        for k, name in enumerate(columns):
            scale = sd[r, name] if sd[r, name] > 0 else ref["sigma"]
            expected = np.array(theirs["values"])[:, k]
            close(modes.iloc[rows, k], expected, 0.0, 1e-4 * scale, f"{r} {name}")
            condvar = np.array(theirs["condvar"])[:, k]
            close(variances[:, k], condvar, 1e-3, 1e-6 * scale**2, f"{r} {name}")


# Inference --------------------------------------------------------------------------


@having("satterthwaite")
def test_satterthwaite(case):
    f, ref = fit(case), reference(case.reference)["satterthwaite"]
    close_by_name(fixed(f, f.df_satterthwaite), ref["df"], 1e-4)
    close_by_name(fixed(f, f.t_values), ref["t"], 2e-4, 1e-4)
    close_by_name(fixed(f, f.p_values), ref["p"], 2e-2, 1e-5)
    for name, L in zip(f.fixef, np.eye(len(f.fixef)), strict=True):
        one = f.test(L)
        close(one.den_df, ref["df"][r_name(name)], 1e-4, 0, name)


# pbkrtest 0.5.2 mixes weighted and unweighted matrices: its 26.3 degrees of freedom for
# 18 subjects with equal designs cannot be; see test_kenward_roger_with_weights
UNWEIGHTED = [c for c in LME4 if c.weights is None]


@having("kenward_roger", UNWEIGHTED)
def test_kenward_roger(case):
    f, ref = fit(case), reference(case.reference)["kenward_roger"]
    for name, L in zip(f.fixef, np.eye(len(f.fixef)), strict=True):
        one, r = f.test(L, ddf="kenward-roger"), r_name(name)
        close(one.den_df, ref["df"][r], 1e-4, 0, name)
        close(one.std_error, [ref["se"][r]], 1e-4, 0, name)
        close(one.t, ref["t"][r], 2e-4, 1e-4, name)


def anova_close(case, table, ref):
    ours = {r_name(str(k)): row for k, row in table.iterrows()}
    assert set(ours) == set(ref)
    for term, row in ref.items():
        for column, theirs in (("sum_sq",) * 2, ("mean_sq",) * 2, ("statistic", "F")):
            close(ours[term][column], row[theirs], 5e-4, 1e-8, f"{term} {column}")
        assert ours[term]["num_df"] == row["num_df"]
        close(ours[term]["den_df"], row["den_df"], 1e-4, 0, f"{term} den_df")
        close(ours[term]["p_value"], row["p"], 2e-2, 1e-6, f"{term} p")


@having("anova_type3_satterthwaite")
def test_anova_satterthwaite(case):
    ref = reference(case.reference)["anova_type3_satterthwaite"]
    anova_close(case, fit(case).anova(type=3, ddf="satterthwaite"), ref)


def test_kenward_roger_with_weights():
    """Against the formulas of Kenward and Roger (1997) with dense matrices."""
    case = next(c for c in LME4 if c.weights)
    f = fit(case)
    term = f.design.terms[0]
    indicator = np.eye(term.n_levels)[term.codes]
    Z = np.einsum("nj,nq->njq", indicator, term.values).reshape(f.nobs, -1)
    units = [np.diag([1.0, 0.0]), np.ones((2, 2)) - np.eye(2), np.diag([0.0, 1.0])]
    G = [Z @ np.kron(np.eye(term.n_levels), e) @ Z.T for e in units]
    G.append(np.diag(1 / f.design.weights))
    cov = f.varcorr["Subject"].cov.to_numpy()
    gamma = [cov[0, 0], cov[1, 0], cov[1, 1], f.sigma**2]
    for k, (df, se) in enumerate(dense_kenward_roger(f.design.X, G, gamma)):
        one = f.test(np.eye(2)[k], ddf="kenward-roger")
        close(one.den_df, df, 1e-6)
        close(one.std_error, [se], 1e-6)


def dense_kenward_roger(X, G, gamma):
    """(df, se) of each coefficient where V = sum gamma_r G_r."""
    inverse = np.linalg.inv(sum(g * c for g, c in zip(G, gamma, strict=True)))
    phi = np.linalg.inv(X.T @ inverse @ X)
    VG = [inverse @ g for g in G]
    P = [-X.T @ a @ inverse @ X for a in VG]
    Q = [[X.T @ a @ b @ inverse @ X for b in VG] for a in VG]
    r = range(len(G))
    information = [
        [
            np.trace(VG[a] @ VG[b])
            - 2 * np.trace(phi @ Q[a][b])
            + np.trace(phi @ P[a] @ phi @ P[b])
            for b in r
        ]
        for a in r
    ]
    W = 2 * np.linalg.inv(information)
    U = sum(W[a, b] * (Q[a][b] - P[a] @ phi @ P[b]) for a in r for b in r)
    adjusted = phi + 2 * phi @ U @ phi
    for row in np.eye(X.shape[1]):
        v = row @ phi @ row
        slope = np.array([row @ phi @ P[a] @ phi @ row for a in r]) / v
        A = slope @ W @ slope  # A1 = A2 for one row
        B, g = 3.5 * A, (2 * A - 5 * A) / (3 * A)
        c1, c2, c3 = np.array([g, 1 - g, 3 - g]) / (3 + 2 * (1 - g))
        rho = ((1 - A) / (1 - c2 * B)) ** 2 * (1 + c1 * B) / (1 - c3 * B)
        yield 4 + 3 / (rho - 1), np.sqrt(row @ adjusted @ row)


@having("anova_type3_kenward_roger", UNWEIGHTED)
def test_anova_kenward_roger(case):
    ref = reference(case.reference)["anova_type3_kenward_roger"]
    anova_close(case, fit(case).anova(type=3, ddf="kenward-roger"), ref)


@having("confint_profile")
def test_profile_intervals(case):
    f, ref = fit(case), reference(case.reference)["confint_profile"]
    ours = f.confint(level=ref["level"], method="profile")
    for name, lower, upper in zip(
        ref["names"], ref["lower"], ref["upper"], strict=True
    ):
        close(ours.loc[name, "lower"], lower, 1e-3, 1e-3 * (upper - lower), name)
        close(ours.loc[name, "upper"], upper, 1e-3, 1e-3 * (upper - lower), name)


@having("prediction")
def test_prediction(case):
    f, ref = fit(case), reference(case.reference)["prediction"]
    new = {k: [row[k] for row in ref["newdata"]] for k in ref["newdata"][0]}
    close(f.predict(new, re="population"), ref["population"], 1e-5)
    with pytest.warns(jg.NewLevelsWarning, match="999"):
        conditional = f.predict(new, re="conditional")
    close(conditional, ref["conditional"], 1e-4)


@pytest.mark.parametrize("name", LRT)
def test_likelihood_ratio(name):
    ref, (dataset, formulas) = reference(name), LRT[name]
    fits = [jg.lmm(formula, data(dataset), reml=False) for formula in formulas]
    for f, theirs in zip(fits, ref["models"], strict=True):
        close(f.log_likelihood, theirs["loglik"], 1e-7)
        close(f.aic, theirs["AIC"], 1e-7)
        close(f.bic, theirs["BIC"], 1e-7)
        assert f.npar == theirs["npar"]
    table = jg.anova(*fits).table
    close(table["statistic"].iloc[1:], ref["chisq"], 1e-4, 1e-5)
    close(table["df"].iloc[1:], ref["df"], 0)
    close(table["p_value"].iloc[1:], ref["p"], 1e-3)


# statsmodels ------------------------------------------------------------------------


@having("fixef", STATSMODELS)
def test_statsmodels(case):
    """Its optimiser stops a little early, and its standard errors come from the joint
    Hessian of fixed effects and variances: 1e-3 for those."""
    f, ref = fit(case), reference(case.reference)
    assert f.log_likelihood >= ref["loglik"] - 1e-6 * abs(ref["loglik"])
    close(f.log_likelihood, ref["loglik"], 1e-6)
    ours = {k.strip("()"): v for k, v in f.fixef.items()}
    close_by_name(ours, ref["fixef"], 1e-4)
    se = {k.strip("()"): v for k, v in zip(f.fixef, f.se, strict=True)}
    close_by_name(se, ref["se"], 1e-3)
    close(f.sigma, ref["sigma"], 1e-4)
    close(f.fitted_values[:20], ref["fitted_first20"], 1e-3)


@having("fixef", STATSMODELS)
def test_statsmodels_variances(case):
    f, ref = fit(case), reference(case.reference)
    first, *rest = f.varcorr.values()
    expected = np.array(ref["cov_re"]["matrix"])
    scale = np.abs(expected).max()
    close(first.cov, expected, 1e-3, 1e-4 * scale)
    for record, value in zip(rest, ref["vcomp"].values(), strict=True):
        close(record.cov, [[value]], 1e-3)
