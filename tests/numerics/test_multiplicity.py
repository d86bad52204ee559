"""Adjusted p-values: known numbers, statsmodels' own, and p-values that are missing."""

import numpy as np
import pytest
from doors import multiplicity


def test_holm_by_hand():
    p = np.array([0.04, 0.01, 0.02])
    np.testing.assert_allclose(multiplicity.adjusted(p, "holm"), [0.04, 0.03, 0.04])
    np.testing.assert_allclose(
        multiplicity.adjusted(np.array([0.9, 0.8]), "holm"), [1.0, 1.0]
    )


def test_benjamini_and_hochberg_by_hand():
    # the definition: the smallest i with p_(i) <= i q / n
    found = multiplicity.adjusted(np.array([0.01, 0.02, 0.9]), "fdr_bh")
    np.testing.assert_allclose(found, [0.03, 0.03, 0.9])


@pytest.mark.parametrize("method", [m for m in multiplicity.METHODS if m != "none"])
def test_the_numbers_of_statsmodels(method):
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p = np.random.default_rng(3).uniform(size=25) ** 3
    p[7] = p[3]
    expected = multitest.multipletests(p, method=method)[1]
    np.testing.assert_allclose(
        multiplicity.adjusted(p, method), expected, rtol=1e-12, atol=1e-15
    )


@pytest.mark.parametrize("method", multiplicity.METHODS)
def test_missing_ones_do_not_count(method):
    p = np.array([np.nan, 0.01, 0.3, np.nan, 0.02])
    found = multiplicity.adjusted(p, method)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(p))
    kept = ~np.isnan(p)
    np.testing.assert_array_equal(found[kept], multiplicity.adjusted(p[kept], method))
    assert np.isnan(multiplicity.adjusted(np.full(2, np.nan), method)).all()
