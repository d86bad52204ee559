"""Analysis of variance against lmerTest 3.1-3 and pbkrtest 0.5.2, with interactions."""

import numpy as np
import pandas as pd
import pytest

import jaxglmm as jg

# d <- within(data.frame(i = 0:71), { g <- i %% 9
#   f <- factor(c("a", "b", "c")[(i %/% 2 + i %/% 9) %% 3 + 1])
#   k <- factor(c("u", "v")[(i %/% 5 + i) %% 2 + 1]); n <- (i * 7) %% 4
#   x <- ((i * 37) %% 23) / 5
#   y <- round(sin(i*1.7) + .4*x + cos(g*2)*1.5 + (f == "b")*.5*x, 4) })
# m <- lmerTest::lmer(y ~ x * f + k * f + (1 | g), d, control = lmerControl(
#   optCtrl = list(xtol_abs = 1e-10, ftol_abs = 1e-10)))
# as.matrix(anova(m, type = 1, ddf = "Satterthwaite"))[, c(1, 3, 4, 5)]
FORMULA = "y ~ x * f + k * f + (1 | g)"
TERMS = ["x", "f", "k", "x:f", "k:f"]
TABLES = {
    (1, "satterthwaite"): [
        [34.80486509712, 1, 55.73116366, 56.92637747931],
        [18.96675984541, 2, 55.29354311, 15.51089089853],
        [0.05584174414, 1, 55.11036691, 0.09133401888],
        [3.51370811357, 2, 55.40594563, 2.87348728212],
        [0.44359395385, 2, 55.78010138, 0.36276820488],
    ],
    (1, "kenward-roger"): [
        [34.6783663933, 1, 55.69734784, 56.71947787074],
        [18.9424849961, 2, 55.25795741, 15.49103884919],
        [0.0558202770, 1, 55.07407379, 0.09129890752],
        [3.5091041181, 2, 55.36969961, 2.86972016333],
        [0.4421875627, 2, 55.75459825, 0.36161613306],
    ],
    (2, "satterthwaite"): [
        [29.95614540657, 1, 55.98797907, 48.99587561914],
        [0.93325774476, 2, 55.32188200, 0.76321201814],
        [0.01903843292, 1, 55.19801301, 0.03113900934],
        [3.20058212220, 2, 55.43705985, 2.61741491504],
        [0.44359395385, 2, 55.79206112, 0.36276820488],
    ],
    (2, "kenward-roger"): [
        [29.80666297034, 1, 55.95520698, 48.75138412154],
        [0.93119893754, 2, 55.28602800, 0.76152813892],
        [0.01902242354, 1, 55.16206572, 0.03111282459],
        [3.19435569267, 2, 55.40165823, 2.61232163894],
        [0.44218756273, 2, 55.75459825, 0.36161613306],
    ],
    (3, "satterthwaite"): [
        [29.25117921193, 1, 56.01439348, 47.84284222584],
        [0.76529983479, 2, 55.31452832, 0.62585714897],
        [0.03051753028, 1, 55.21157510, 0.04991406929],
        [3.20058212220, 2, 55.43705985, 2.61741491504],
        [0.44359395385, 2, 55.79206112, 0.36276820488],
    ],
    (3, "kenward-roger"): [
        [29.10110903122, 1, 55.98172936, 47.59738942113],
        [0.76359584712, 2, 55.27909059, 0.62446344936],
        [0.03048975476, 1, 55.17568144, 0.04986864003],
        [3.19435569267, 2, 55.40165823, 2.61232163894],
        [0.44218756273, 2, 55.75459825, 0.36161613306],
    ],
}


@pytest.fixture(scope="module")
def data():
    i = np.arange(72)
    g, x = i % 9, ((i * 37) % 23) / 5
    f = np.array(list("abc"))[(i // 2 + i // 9) % 3]
    y = np.sin(i * 1.7) + 0.4 * x + np.cos(g * 2) * 1.5 + (f == "b") * 0.5 * x
    k = np.array(list("uv"))[(i // 5 + i) % 2]
    n = (i * 7) % 4
    return pd.DataFrame(dict(y=np.round(y, 4), x=x, f=f, k=k, n=n, g=g))


@pytest.fixture(scope="module")
def fit(data):
    return jg.lmm(FORMULA, data)


COLUMNS = ["sum_sq", "num_df", "den_df", "statistic"]


@pytest.mark.parametrize(("type", "ddf"), TABLES)
def test_against_lmertest(fit, type, ddf):
    table = fit.anova(type=type, ddf=ddf)
    assert list(table.index) == TERMS
    np.testing.assert_allclose(table[COLUMNS], TABLES[type, ddf], rtol=2e-5)


def test_numbers_as_a_factor(data):
    """Type 2: x lies in x:C(n), because n enters as a factor although it is numbers."""
    table = jg.lmm("y ~ x * C(n) + (1 | g)", data).anova(type=2)
    # m <- lmerTest::lmer(y ~ x * factor(n) + (1 | g), d); anova(m, type = 2)
    expected = [
        [33.6278274402, 1, 57.05091287, 36.75960794761],
        [0.2435362405, 3, 58.82966060, 0.08873897408],
        [1.6421964310, 3, 59.26468060, 0.59837840238],
    ]
    np.testing.assert_allclose(table[COLUMNS], expected, rtol=2e-5)


def test_types_survive_saving(fit, tmp_path):
    fit.save(tmp_path / "fit")
    again = jg.load(tmp_path / "fit")
    for type in (1, 2, 3):
        np.testing.assert_allclose(again.anova(type=type), fit.anova(type=type), 1e-9)


@pytest.mark.parametrize("type", [1, 2, 3])
def test_one_term(data, type):
    """All types are one: the rows that make the degrees of freedom too."""
    table = jg.lmm("y ~ f + (1 | g)", data).anova(type=type)
    # m <- lmerTest::lmer(y ~ f + (1 | g), d); anova(m, type = 1)
    expected = [[17.524194760, 2, 61.477451015, 7.376399891]]
    np.testing.assert_allclose(table[COLUMNS], expected, rtol=1e-6)


def test_kenward_roger_beside_a_tiny_residual(data):
    """Effects of the groups a thousand times the residual: nine groups, 8 df."""
    effects = 1000 * np.sin([1, 2, 3, 5, 8, 13, 21, 34, 55])[data.g]
    slopes = 300 * np.cos([1, 2, 3, 5, 8, 13, 21, 34, 55])[data.g]
    y = effects + slopes * data.x + np.sin(np.arange(72) * 1.7)
    fit = jg.lmm("y ~ x + (x | g)", data.assign(y=y))
    df = fit.coefficient_table("kenward-roger")["df"]
    np.testing.assert_allclose(df, 8, rtol=1e-4)
