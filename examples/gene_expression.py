# %% [markdown]
# # From counts to a volcano plot: two thousand genes, one mixed model each
#
# Twelve donors gave five samples each, at different doses, sequenced in three batches.
# Samples of one donor are alike, so a linear model would count them as independent and
# find too much; a random intercept of the donor sets that right. One call fits all
# genes.

# %%
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

import jaxglmm as jg

rng = np.random.default_rng(2)
GENES, DONORS, EACH = 2000, 12, 5
samples = pd.DataFrame(
    {
        "donor": np.repeat([f"d{k:02d}" for k in range(DONORS)], EACH),
        "dose": rng.uniform(0, 2, DONORS * EACH).round(2),
        "batch": rng.choice(["a", "b", "c"], DONORS * EACH),
    }
)

# %% [markdown]
# Simulated counts: a mean for each gene, differences between donors and batches, and
# one gene in ten that answers to the dose. Counts are overdispersed, and samples were
# sequenced to different depths.

# %%
donor = pd.factorize(samples["donor"])[0]
batch = pd.factorize(samples["batch"])[0]
active = rng.uniform(size=GENES) < 0.1
effect = np.where(active, rng.choice([-1, 1], GENES) * rng.uniform(0.3, 1, GENES), 0.0)
log_mean = rng.normal(4.5, 1.0, GENES)
eta = log_mean + samples["dose"].to_numpy()[:, None] * effect
eta += rng.gamma(2, 0.15, GENES) * rng.normal(size=(DONORS, GENES))[donor]
eta += 0.3 * rng.normal(size=(3, GENES))[batch]
depth = rng.lognormal(0, 0.3, len(samples))
counts = rng.poisson(depth[:, None] * np.exp(eta) * rng.gamma(10, 0.1, eta.shape))

# %% [markdown]
# Logarithms of counts, less the depth of each sample. Depth is the median over genes of
# what a sample has more than the average (Anders and Huber 2010): totals would not do,
# since a few strong genes that go up with the dose would make all others go down.

# %%
logs = np.log2(counts + 0.5)
size = np.median(logs - logs.mean(axis=0), axis=1, keepdims=True)
expression = pd.DataFrame(logs - size, columns=[f"g{k}" for k in range(GENES)])
fits = jg.fit_many(
    "expression ~ dose + batch + (1 | donor)", samples, responses=expression
)
print(fits.summary())

assert fits.converged.all()
assert fits.coefficients.shape == (GENES, 4)

# %% [markdown]
# With sixty samples a gene, residual variances are uncertain; empirical Bayes draws
# them towards a common value. Then one row a gene, adjusted as by Benjamini and
# Hochberg.

# %%
moderated = fits.moderate()
print(moderated.top("dose", 5).round(4))

dose = moderated.tidy("fixed").query("term == 'dose'")
found = (dose["p_adjusted"] < 0.05).to_numpy()
print(f"{found.sum()} genes at a false discovery rate of 5 %")

assert found[active].mean() > 0.8  # most of the effects are found
assert (found & ~active).sum() < 0.12 * found.sum()  # few others are
assert abs(np.corrcoef(dose["estimate"][active], effect[active])[0, 1]) > 0.95

# %% [markdown]
# Without the donors' random intercept the same tests would be wrong for effects that
# vary between donors; here, p-values of genes without an effect are flat, as they
# should be.

# %%
quiet = dose["p_value"].to_numpy()[~active]
print(np.histogram(quiet, bins=5, range=(0, 1))[0])

assert abs(np.mean(quiet < 0.05) - 0.05) < 0.02

# %% [markdown]
# Two figures: the shape of the p-values, and effect against evidence.

# %%
folder = Path(tempfile.mkdtemp())
for name, axes in (
    ("p-values", moderated.plot.p_values("dose")),
    ("volcano", moderated.plot.volcano("dose")),
):
    axes.figure.savefig(folder / f"{name}.png")
    print(folder / f"{name}.png")

assert (folder / "volcano.png").stat().st_size > 10_000

# %% [markdown]
# One of them in full: `fits["g17"]` is the fit that `jg.lmm` makes of that gene.

# %%
best = moderated[~moderated.singular].top("dose", 1).index[0]
print(fits[best].summary())

assert np.isclose(fits[best].fixef["dose"], fits.frame().loc[best, "dose"])
