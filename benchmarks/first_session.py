"""A first session of small models, as people work: fit, look, change the formula."""

import numpy as np

import jaxglmm as jg

sleep, penicillin = jg.datasets.load("sleepstudy"), jg.datasets.load("Penicillin")
cbpp = jg.datasets.load("cbpp")
cbpp["row"] = np.arange(len(cbpp)).astype(str)
cbpp["log_size"] = np.log(cbpp["size"])
SICK = "cbind(incidence, size - incidence) ~ "

total = 0.0
fits = []
for formula, options in (
    ("Reaction ~ Days + (1 | Subject)", {}),
    ("Reaction ~ Days + (Days | Subject)", {}),
    ("Reaction ~ Days + (Days || Subject)", {}),
    ("Reaction ~ poly(Days, 2) + (Days | Subject)", {}),
    ("Reaction ~ C(Days) + (1 | Subject)", {}),
    ("Reaction ~ Days + (Days | Subject)", {"reml": False}),
):
    fits.append(jg.lmm(formula, sleep, **options))
    fits[-1].summary()
fits.append(jg.lmm("diameter ~ 1 + (1 | plate) + (1 | sample)", penicillin))
fits[-1].summary()
for formula, family in (
    (SICK + "period + (1 | herd)", "binomial"),
    (SICK + "1 + (1 | herd)", "binomial"),
    (SICK + "period + (1 | herd) + (1 | row)", "binomial"),
    ("incidence ~ period + offset(log_size) + (1 | herd)", "poisson"),
    ("incidence ~ period + offset(log_size) + (1 | herd)", "nbinom2"),
):
    fits.append(jg.glmm(formula, cbpp, family=family))
    fits[-1].summary()
fit = fits[1]
fit.confint(method="profile")
fit.summary(ddf="kenward-roger")
fit.predict(sleep, interval="prediction")
fit.bootstrap(200)
print(sum(f.log_likelihood for f in fits))
