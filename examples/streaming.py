# %% [markdown]
# # A mixed model of more rows than memory should hold
#
# Shops report their sales day by day, a file a month. The model needs sums by shop and
# nothing else, so the files are read in batches and never held.

# %%
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

import jaxglmm as jg

MONTHS, SHOPS, ROWS = 12, 500, 4_000
FORMULA = "sales ~ price + weekend + (price | shop)"


def month(k: int, shops: np.ndarray) -> pd.DataFrame:
    """Sales of a month; shops: (J, 2) their intercepts and price slopes."""
    rng = np.random.default_rng([1, k])
    shop = rng.integers(0, len(shops), ROWS)
    price = rng.uniform(1.0, 3.0, ROWS)
    weekend = rng.choice(["no", "yes"], ROWS, p=[5 / 7, 2 / 7])
    level = 20 + shops[shop, 0] + 2 * (weekend == "yes")
    sales = level + (shops[shop, 1] - 3) * price + rng.normal(0, 2, ROWS)
    names = np.array([f"shop{j:04d}" for j in range(len(shops))], object)
    columns = {"shop": names[shop], "price": price, "weekend": weekend}
    return pd.DataFrame(columns | {"sales": sales})


folder = Path(tempfile.mkdtemp())
shops = np.random.default_rng(0).normal(size=(SHOPS, 2)) * [3.0, 0.8]
for k in range(MONTHS):
    month(k, shops).to_parquet(folder / f"month{k:02d}.parquet")

# %% [markdown]
# The files are the data. The plan says what is read; the fit answers what needs the
# model alone.

# %%
fit = jg.lmm(FORMULA, str(folder / "month*.parquet"), checkpoint=folder / "run")
print(fit.plan)
print(fit.summary())
new = pd.DataFrame({"price": [2.0, 2.0], "weekend": ["no", "yes"]})
print(fit.predict(new, "population", se=True, interval="confidence"))

# %% [markdown]
# It is the fit of the table in memory, whatever the number of files.

# %%
whole = pd.concat([pd.read_parquet(p) for p in sorted(folder.glob("month*.parquet"))])
inside = jg.lmm(FORMULA, whole)
assert abs(fit.criterion / inside.criterion - 1) < 1e-12
assert np.allclose(fit.coef, inside.coef, rtol=1e-8)
assert np.allclose(fit.se, inside.se, rtol=1e-8)
assert np.allclose(fit.coef, [20, -3, 2], atol=0.5)

# %% [markdown]
# Rows and levels go to files: means and residuals of all sales, what each shop adds.

# %%
files = sorted(folder.glob("month*.parquet"))
assert fit.predict(files, to=folder / "means.parquet") == MONTHS * ROWS
means = pd.read_parquet(folder / "means.parquet")
assert np.allclose(means["residual"], inside.residuals, atol=1e-6)
assert fit.ranef_to(folder / "shops.parquet", se=True) == SHOPS
print(pd.read_parquet(folder / "shops.parquet").head())

# %% [markdown]
# A DuckDB relation is a source too, and adds up in SQL.

# %%
try:
    import duckdb
except ImportError:
    print("duckdb is not installed")
else:
    relation = duckdb.read_parquet(str(folder / "month*.parquet"))
    pushed = jg.lmm(FORMULA, relation)
    print(pushed.plan)
    assert np.allclose(pushed.coef, inside.coef, rtol=1e-8)
