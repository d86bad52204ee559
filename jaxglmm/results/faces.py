"""The faces by name: which class shows which kind of fit.

A fit can be asked for many (``bootstrap``), many hold single fits, and a file may hold
any of them. So the faces know one another by the names here alone, as the front door
knows all modules, and each is imported when it is first needed.
"""

from __future__ import annotations

import pkgutil
from typing import Any

WHERE = {
    "linear": "jaxglmm.results.fit:Fit",
    "streamed": "jaxglmm.results.streamed_fit:StreamedFit",
    "streamed generalised": "jaxglmm.results.streamed_fit:StreamedGeneralisedFit",
    "correlated": "jaxglmm.results.correlated_fit:CorrelatedFit",
    "dispersed": "jaxglmm.results.correlated_fit:DispersedFit",
    "generalised": "jaxglmm.results.generalised_fit:GeneralisedFit",
    "ordinal": "jaxglmm.results.ordinal_fit:OrdinalFit",
    "multinomial": "jaxglmm.results.multinomial_fit:MultinomialFit",
    "ordinal parts": "jaxglmm.results.ordinal_fit:OrdinalPartsFit",
    "components": "jaxglmm.results.components_fit:ComponentsFit",
    "posterior": "jaxglmm.results.posterior_fit:PosteriorFit",
    "posterior of categories": (
        "jaxglmm.results.categories_posterior:CategoriesPosterior"
    ),
    "study": "jaxglmm.results.study:Study",
    "many": "jaxglmm.results.fits:Fits",
    "posteriors": "jaxglmm.results.posteriors:Posteriors",
}


def face(kind: str) -> Any:
    """The class that shows fits of a kind."""
    return pkgutil.resolve_name(WHERE[kind])
