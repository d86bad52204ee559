"""Doors of many posteriors: tables, figures, files, ArviZ, parts."""

import warnings

import numpy as np
import pandas as pd
import pytest
from doors import _status

import jaxglmm as jg

SLEEP = "y ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def posteriors():
    """Five data sets, of which the second cannot be fitted."""
    sleep = jg.datasets.load("sleepstudy")
    y = sleep["Reaction"].to_numpy()
    Y = pd.DataFrame({f"gene ${k}$": y * (k + 1) for k in range(5)})
    Y["gene $1$"] = np.inf
    Y["gene $3$"] = np.random.default_rng(0).normal(size=180)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return jg.fit_many(SLEEP, sleep, responses=Y, method=jg.MAP(draws=200))


def test_status_in_words(posteriors):
    assert posteriors.status_names[1] == _status.NAMES[_status.BAD_VALUES]
    table = posteriors.tidy()
    assert (table[table["dataset"] == "gene $1$"]["status"] != "converged").all()
    assert (table["status"] == "converged").sum() == 4 * len(posteriors.names)


def test_top(posteriors):
    top = posteriors.top("Days", 4)
    assert list(top.columns)[-1] == "p_direction"
    assert top.index[-1] == "gene $3$"  # noise
    assert "gene $1$" not in top.index
    k = posteriors.labels.tolist().index("gene $3$")
    share = (posteriors.draws[k, :, 1] > 0).mean()
    assert top["p_direction"].iloc[-1] == max(share, 1 - share)
    assert (top["p_direction"].iloc[:3] == 1).all()
    with pytest.raises(jg.NotApplicableError, match="no parameter 'x'; there are"):
        posteriors.top("x")


def test_summary(posteriors):
    text = posteriors.summary()
    assert "5 posteriors, 4 converged" in text
    assert "not converged: 1 values that cannot be used" in text
    known = posteriors.mean[posteriors.converged, 1]
    assert text.table.loc["Days", "mean"] == pytest.approx(known.mean())
    assert text.tests.loc["Days", "95% above 0"] == 3
    assert "<table" in posteriors._repr_html_()


def test_parts(posteriors):
    some = posteriors[[4, 1]]
    assert some.labels.tolist() == ["gene $4$", "gene $1$"]
    assert list(some.errors) == [1]
    np.testing.assert_array_equal(some.mean[0], posteriors.mean[4])
    fit = some[0]
    np.testing.assert_array_equal(fit.coefficients, posteriors.coefficients[4])
    assert len(posteriors[posteriors.converged]) == 4
    assert len(posteriors[1:3]) == 2


@pytest.mark.parametrize("draws", [True, False])
def test_files(posteriors, tmp_path, draws):
    path = tmp_path / "posteriors.jaxglmm"
    posteriors.save(path, draws=draws)
    for back in (jg.load(path), type(posteriors).load(path)):
        assert repr(back) == repr(posteriors)
        np.testing.assert_array_equal(back.mean, posteriors.mean)
        np.testing.assert_array_equal(back.labels, posteriors.labels)
        assert back.errors == posteriors.errors
        assert back.status_names.tolist() == posteriors.status_names.tolist()
        assert (back.draws is not None) == draws
        if draws:
            np.testing.assert_array_equal(back.draws, posteriors.draws)
        assert len(back.top("Days", 3)) == 3
        with pytest.raises(jg.NotApplicableError, match="not at hand"):
            back[0]
    with pytest.raises(jg.DataError, match=r"no file"):
        type(posteriors).load(tmp_path / "other")


def test_arviz(posteriors):
    pytest.importorskip("arviz")
    tree = posteriors.to_arviz()
    beta = tree["posterior"]["beta"]
    assert beta.dims == ("chain", "draw", "model", "term")
    own = beta.sel(model="gene $2$", term="Days").values.ravel()
    np.testing.assert_array_equal(own, posteriors.draws[2, :, 1])
    cor = tree["posterior"]["cor"].sel(cor_term="cor_Days.(Intercept)|Subject")
    assert cor.sizes == {"chain": 1, "draw": 200, "model": 5}
    assert tree["posterior"]["sigma"].sizes["model"] == 5
    converged = tree["constant_data"]["converged"].values
    assert converged.tolist() == posteriors.converged.tolist()


@pytest.mark.parametrize("most", [60, 2])
def test_intervals(posteriors, most):
    ax = posteriors.plot.intervals("Days", max_labels=most)
    ax.figure.canvas.draw()
    notes = [t.get_text() for t in ax.texts]
    assert "95% intervals, blue: 3 without 0; left out: 1 not converged" in notes
    if most > 4:
        labels = [t.get_text() for t in ax.get_yticklabels()]
        assert labels == ["gene $3$", "gene $0$", "gene $2$", "gene $4$"]
    with pytest.raises(jg.NotApplicableError, match="no parameter"):
        posteriors.plot.intervals("x")
