"""Which engine answers a function's ``method``; the first of each is the default."""

from __future__ import annotations

from functools import partial

from jaxglmm.model.families import family_from
from jaxglmm.spreadsheet import several
from jaxglmm.spreadsheet.estimate import Engine, by_lmm, generalised

METHODS: dict[str, dict[str, Engine]] = {
    "poisson": generalised(family_from("poisson")),
    "binomial": generalised(family_from("binomial")),
    "negbin": generalised(family_from("nbinom2")),
    "gaussian": {"reml": partial(by_lmm, "reml"), "ml": partial(by_lmm, "ml")},
    "zinb": {"laplace": partial(several.by_zeros, "laplace")},
    "ordinal": {"laplace": partial(several.by_thresholds, "laplace")},
    "visits": {ddf: partial(several.by_visits, ddf) for ddf in several.DDF},
}
