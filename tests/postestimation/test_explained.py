import numpy as np
import pytest
import twin


def test_sleepstudy(sleep):
    """R's performance: r2_nakagawa 0.279, 0.799; icc 0.722, 0.521."""
    assert sleep.r2().marginal == pytest.approx(0.279, abs=5e-4)
    assert sleep.r2().conditional == pytest.approx(0.799, abs=5e-4)
    assert sleep.icc.adjusted == pytest.approx(0.722, abs=5e-4)
    assert sleep.icc.unadjusted == pytest.approx(0.521, abs=5e-4)
    assert sleep.icc["Subject"] == pytest.approx(
        612.0897 / (612.0897 + 654.941), rel=1e-5
    )


def test_intercepts_only(penicillin):
    """All shares over one total; nothing else to adjust for."""
    plate, sample, residual = (c.variance for c in penicillin.var_components)
    total = plate + sample + residual
    assert penicillin.icc == pytest.approx(
        {"plate": plate / total, "sample": sample / total}
    )
    assert penicillin.icc.by_factor == pytest.approx(dict(penicillin.icc))
    assert penicillin.icc.adjusted == pytest.approx(sum(penicillin.icc.values()))
    assert penicillin.r2().marginal == pytest.approx(0.0, abs=1e-12)
    assert penicillin.r2().conditional == pytest.approx(penicillin.icc.adjusted)


def test_r2_and_adjusted_icc_do_not_depend_on_the_zero_of_a_covariate(
    sleepstudy, sleep
):
    shift = np.array([[1.0, 5.0], [0.0, 1.0]])
    root = np.linalg.cholesky(shift @ sleep.varcorr["Subject"].cov @ shift.T)
    shifted = twin.make(
        "Reaction ~ Days + (Days | Subject)",
        sleepstudy.assign(Days=sleepstudy.Days - 5),
        [root / sleep.sigma],
    )
    assert shifted.r2().conditional == pytest.approx(sleep.r2().conditional)
    assert shifted.icc.adjusted == pytest.approx(sleep.icc.adjusted)
    assert shifted.icc["Subject"] != pytest.approx(sleep.icc["Subject"])


def test_a_factor_without_intercept_counts_with_its_mean_variance(sleepstudy):
    fit = twin.make("Reaction ~ Days + (0 + Days | Subject)", sleepstudy, [0.3])
    assert fit.icc["Subject"] == pytest.approx(fit.icc.adjusted)


def test_singular(singular):
    assert singular.icc["Batch"] == 0.0
    assert repr(singular.r2()) == "R2(marginal=0.0000, conditional=0.0000)"
