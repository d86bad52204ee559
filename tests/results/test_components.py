from dataclasses import replace

import numpy as np
import pytest
from results import twin

from jaxglmm.fitting import components
from jaxglmm.fitting.components import VarianceComponent


def test_varcorr_of_sleepstudy(sleep):
    record = sleep.varcorr["Subject"]
    np.testing.assert_allclose(record.sd, [24.7404476167, 5.9221332596])
    assert record.corr.loc["Days", "(Intercept)"] == pytest.approx(0.06555134285)
    np.testing.assert_allclose(record.cov.to_numpy()[1], [9.6043354748, 35.0716623442])
    assert sleep.varcorr.sigma == pytest.approx(25.5918158926)


def test_flat_components_have_the_correlation_with_the_first(machines):
    rows = machines.var_components
    corr = machines.varcorr["Worker"].corr.to_numpy()
    assert [r.name for r in rows] == ["(Intercept)", "Machine[T.B]", "Machine[T.C]", ""]
    assert [r.corr for r in rows] == [None, corr[1, 0], corr[2, 0], None]
    assert rows[-1] == VarianceComponent(
        "Residual", "", machines.sigma**2, machines.sigma
    )
    for row in rows:
        assert row.variance == pytest.approx(row.std_dev**2)


def test_correlations_that_are_zero_by_assumption(sleep):
    (term,) = sleep.design.terms
    apart = replace(sleep.design, terms=(replace(term, covariance="diag"),))
    rows = components.flat(apart, sleep.estimates)
    assert [r.corr for r in rows] == [None, 0.0, None]


def test_labels_of_parameters(machines, sleep):
    labels = [
        p.label for p in components.parameters(machines.design, machines.estimates)
    ]
    assert labels == [
        "sd_(Intercept)|Worker",
        "sd_Machine[T.B]|Worker",
        "sd_Machine[T.C]|Worker",
        "cor_Machine[T.B].(Intercept)|Worker",
        "cor_Machine[T.C].(Intercept)|Worker",
        "cor_Machine[T.C].Machine[T.B]|Worker",
        "sigma",
    ]


def test_zero_variance_has_no_correlation():
    sd, corr = components.sd_and_correlation(np.array([[4.0, 0.0], [0.0, 0.0]]))
    np.testing.assert_array_equal(sd, [2.0, 0.0])
    assert np.isnan(corr[0, 1])
    np.testing.assert_array_equal(np.diag(corr), 1.0)


def test_the_table_shows_itself(sleepstudy, sleep):
    assert "Subject  (Intercept)   612.09   24.740" in repr(sleep.varcorr)
    assert "<table>" in sleep.varcorr._repr_html_()
    both = twin.make("Reaction ~ 1 + (Days || Subject)", sleepstudy, [1.0, 0.2])
    assert "Corr" not in repr(both.varcorr)
