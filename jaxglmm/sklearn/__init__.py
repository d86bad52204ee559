"""Estimators with scikit-learn's interface: ``fit``, ``predict``, ``score``, clones.

Groups come as columns of X (``groups="school"``), or beside it: ``fit(X, y,
groups=labels)``, which pipelines and cross-validation pass on by metadata routing.
Without either there are no random effects. Predictions use the random effects of groups
that were in the data, and are at the population level for others. scikit-learn is an
extra: ``pip install 'jaxglmm[sklearn]'``.

>>> import jaxglmm as jg
>>> from jaxglmm.sklearn import LMMRegressor
>>> sleep = jg.datasets.load("sleepstudy")
>>> model = LMMRegressor(groups="Subject", random_slopes=["Days"])
>>> model = model.fit(sleep[["Days", "Subject"]], sleep["Reaction"])
>>> model.coef_.round(3).tolist(), round(float(model.intercept_), 3)
([10.467], 251.405)
"""

try:
    from jaxglmm.sklearn.estimators import (
        GLMMClassifier,
        GLMMRegressor,
        LMMRegressor,
    )
except ImportError as error:
    raise ImportError(
        "these estimators need scikit-learn 1.6 or newer: pip install "
        "'jaxglmm[sklearn]'"
    ) from error

__all__ = ["GLMMClassifier", "GLMMRegressor", "LMMRegressor"]
