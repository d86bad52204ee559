# %% [markdown]
# # How many patients? Power by simulation
#
# Patients are measured five times; half of them are treated, and the treatment should
# change their slope. How often would a study of a given size find it? Simulate the
# study many times, fit the model to every simulation, and count.

# %%
import numpy as np
import pandas as pd

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
assert table.loc[48, 0.8] > 0.8 > table.loc[12, 0.8]

# %% [markdown]
# The estimates themselves are there too: here, how far off the slope's standard
# deviation is in studies of 48 patients (the truth is 0.8).

# %%
print(fits.frame()["sd_week|patient"].describe().round(3))

assert abs(fits.frame()["sd_week|patient"].median() - 0.8) < 0.1
