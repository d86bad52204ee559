# %% [markdown]
# # How many patients? Power by simulation
#
# Patients are measured five times; half of them are treated, and the treatment should
# change their slope. How often would a study of a given size find it? Simulate the
# study many times, fit the model to every simulation, and count.

# %%
import numpy as np
import pandas as pd
from scipy import stats

import jaxglmm as jg

VISITS, STUDIES = 5, 1000
FORMULA = "score ~ week * treated + (week | patient)"


def study(patients: int) -> pd.DataFrame:
    """The design: who is seen when, and who is treated."""
    return pd.DataFrame(
        {
            "patient": np.repeat(np.arange(patients), VISITS),
            "week": np.tile(np.arange(VISITS) / 2.0, patients),
            "treated": np.repeat(np.arange(patients) % 2, VISITS).astype(float),
        }
    )


def simulate(design: pd.DataFrame, effect: float, rng) -> np.ndarray:
    """One column a study: lines that differ between patients, and noise."""
    who = design["patient"].to_numpy()
    week = design["week"].to_numpy()[:, None]
    level = rng.normal(0, 2.0, size=(who.max() + 1, STUDIES))[who]
    slope = rng.normal(0, 0.8, size=(who.max() + 1, STUDIES))[who]
    slope += 1.0 + effect * design["treated"].to_numpy()[:, None]
    return 20 + level + slope * week + rng.normal(size=(len(design), STUDIES))


# %% [markdown]
# A thousand studies are one call. Without an effect, one test in twenty should still
# say yes: Satterthwaite's degrees of freedom keep that promise for small studies too.

# %%
rng = np.random.default_rng(7)
power = {}
for patients in (12, 24, 48):
    design = study(patients)
    for effect in (0.0, 0.8):
        responses = simulate(design, effect, rng)
        fits = jg.fit_many(FORMULA, design, responses=responses)
        term = fits.coefficient_names.index("week:treated")
        power[patients, effect] = np.mean(fits.p_values[:, term] < 0.05)
        assert fits.converged.mean() > 0.99

table = pd.Series(power).unstack().rename_axis(index="patients", columns="effect")
print(table)

assert (abs(table[0.0] - 0.05) < 0.025).all()
assert table[0.8].is_monotonic_increasing

# %% [markdown]
# For a design as balanced as this one theory knows the answer: a patient's own slope
# has the variance 0.8² + 1 / sum((week - mean)²), and two groups of slopes are compared
# by a t-test.

# %%
week = np.arange(VISITS) / 2.0
variance = 0.8**2 + 1 / np.sum((week - week.mean()) ** 2)
for patients in table.index:
    df, shift = patients - 2, 0.8 / np.sqrt(4 * variance / patients)
    edge = stats.t.ppf(0.975, df)
    known = stats.nct.sf(edge, df, shift) + stats.nct.cdf(-edge, df, shift)
    print(f"{patients} patients: {table.loc[patients, 0.8]:.2f}, by theory {known:.2f}")
    assert abs(table.loc[patients, 0.8] - known) < 0.05

# %% [markdown]
# The estimates themselves are there too: here, how far off the slope's standard
# deviation is in studies of 48 patients (the truth is 0.8).

# %%
print(fits.frame()["sd_week|patient"].describe().round(3))

assert abs(fits.frame()["sd_week|patient"].median() - 0.8) < 0.1
