"""The estimators: ``LMMRegressor``, ``GLMMRegressor``, ``GLMMClassifier``."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, column_or_1d

from jaxglmm.api.models import lmm
from jaxglmm.formula.matrix import unmasked
from jaxglmm.model.families import Binomial, Gaussian
from jaxglmm.sklearn.base import MixedModel, Regressor
from jaxglmm.sklearn.reading import numbers_of, weights_of


class LMMRegressor(Regressor):
    """Linear mixed model as a regressor.

    Args:
        groups: name or position of the column of X that holds the labels of groups; a
            list for several factors, crossed or nested by their labels.
        random_slopes: names or positions of columns whose slopes vary by group.
        random_intercept: intercepts vary by group.
        fit_intercept: a fixed intercept.
        method: "reml" or "ml".
        correlated: whether the random effects of a group may be correlated.
        tol: of -2 log-likelihood.
        max_iter: most evaluations.

    Attributes:
        coef_: (p,) slopes of the columns of X that are not groups.
        intercept_: the fixed intercept.
        random_effects_: factor -> frame of predicted random effects.
        fit_: the ``jg.Fit``; None without groups, which is least squares.

    Without groups it is least squares, which random effects of variance zero are, with
    a warning. Rows of X, y and weights are matched by position, as scikit-learn does.
    """

    def __init__(
        self,
        groups: Any = None,
        *,
        random_slopes: Any = None,
        random_intercept: bool = True,
        fit_intercept: bool = True,
        method: str = "reml",
        correlated: bool = True,
        tol: float = 1e-8,
        max_iter: int = 200,
    ):
        self.groups = groups
        self.random_slopes = random_slopes
        self.random_intercept = random_intercept
        self.fit_intercept = fit_intercept
        self.method = method
        self.correlated = correlated
        self.tol = tol
        self.max_iter = max_iter

    def fit(
        self, X: Any, y: Any, groups: Any = None, sample_weight: Any = None
    ) -> LMMRegressor:
        """Fit.

        Args:
            X: (n, p) frame or array.
            y: (n,) numbers.
            groups: (n,) labels, or a dict or frame of several factors, beside X.
            sample_weight: (n,) prior weights.
        """
        numbers, labels, slopes = self._prepare(X, groups)
        y = numbers_of(self, y, len(numbers))
        weights = weights_of(sample_weight, numbers)
        self.factors_ = list(labels)
        if not labels:
            self._least_squares(numbers, y, weights)
            return self
        fit = lmm(
            **self._model(y, numbers, labels, slopes, weights), method=self.method
        )
        self._keep(fit, numbers.shape[1])
        return self


class GLMMRegressor(Regressor):
    """Generalised linear mixed model as a regressor of means.

    Args:
        family: as for ``jg.glmm``: "poisson", "gamma", "nbinom2", "gaussian", ... or an
            object with a link.
        groups: as for ``LMMRegressor``.
        random_slopes: as for ``LMMRegressor``.
        random_intercept: as for ``LMMRegressor``.
        fit_intercept: as for ``LMMRegressor``.
        method: "laplace", or what ``jg.glmm`` takes besides.
        correlated: as for ``LMMRegressor``.
        tol: as for ``LMMRegressor``.
        max_iter: as for ``LMMRegressor``.

    >>> import jaxglmm as jg
    >>> from jaxglmm.sklearn import GLMMRegressor
    >>> ticks = jg.datasets.load("grouseticks")
    >>> X = ticks[["HEIGHT", "BROOD"]].assign(HEIGHT=ticks["HEIGHT"] / 100)
    >>> model = GLMMRegressor("poisson", groups="BROOD").fit(X, ticks["TICKS"])
    >>> model.predict(X).shape
    (403,)
    """

    def __init__(
        self,
        family: Any = "poisson",
        *,
        groups: Any = None,
        random_slopes: Any = None,
        random_intercept: bool = True,
        fit_intercept: bool = True,
        method: Any = "laplace",
        correlated: bool = True,
        tol: float = 1e-8,
        max_iter: int = 200,
    ):
        self.family = family
        self.groups = groups
        self.random_slopes = random_slopes
        self.random_intercept = random_intercept
        self.fit_intercept = fit_intercept
        self.method = method
        self.correlated = correlated
        self.tol = tol
        self.max_iter = max_iter

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.positive_only = str(self.family).lower() != "gaussian"
        return tags

    def fit(
        self, X: Any, y: Any, groups: Any = None, sample_weight: Any = None
    ) -> GLMMRegressor:
        """Fit; arguments as for ``LMMRegressor.fit``."""
        numbers, labels, slopes = self._prepare(X, groups)
        y = numbers_of(self, y, len(numbers))
        weights = weights_of(sample_weight, numbers)
        self.factors_ = list(labels)
        if not labels and self._is_least_squares():
            self._least_squares(numbers, y, weights)
            return self
        self._maximise(self.family, numbers, y, labels, slopes, weights)
        return self

    def _is_least_squares(self) -> bool:
        if isinstance(self.family, Gaussian):
            return self.family.link.name == "identity"
        return str(self.family).lower() == "gaussian"


class GLMMClassifier(ClassifierMixin, MixedModel):
    """Mixed logistic regression of two classes.

    Args:
        groups: as for ``LMMRegressor``.
        random_slopes: as for ``LMMRegressor``.
        random_intercept: as for ``LMMRegressor``.
        fit_intercept: as for ``LMMRegressor``.
        link: "logit", "probit", "cloglog" or "cauchit".
        method: "laplace", or what ``jg.glmm`` takes besides.
        correlated: as for ``LMMRegressor``.
        tol: as for ``LMMRegressor``.
        max_iter: as for ``LMMRegressor``.

    Attributes:
        classes_: the two labels; coefficients are about the second.
        coef_: (1, p) slopes.
        intercept_: (1,) the fixed intercept.

    >>> import jaxglmm as jg
    >>> from jaxglmm.sklearn import GLMMClassifier
    >>> ohio = jg.datasets.load("ohio")
    >>> X = ohio[["age", "smoke", "id"]]
    >>> model = GLMMClassifier(groups="id").fit(X, ohio["resp"])
    >>> model.predict_proba(X).shape
    (2148, 2)
    """

    def __init__(
        self,
        groups: Any = None,
        *,
        random_slopes: Any = None,
        random_intercept: bool = True,
        fit_intercept: bool = True,
        link: str = "logit",
        method: Any = "laplace",
        correlated: bool = True,
        tol: float = 1e-8,
        max_iter: int = 200,
    ):
        self.groups = groups
        self.random_slopes = random_slopes
        self.random_intercept = random_intercept
        self.fit_intercept = fit_intercept
        self.link = link
        self.method = method
        self.correlated = correlated
        self.tol = tol
        self.max_iter = max_iter

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags

    def fit(
        self, X: Any, y: Any, groups: Any = None, sample_weight: Any = None
    ) -> GLMMClassifier:
        """Fit; y holds two labels of any kind."""
        numbers, labels, slopes = self._prepare(X, groups)
        if y is None:
            raise ValueError("requires y to be passed, but the target y is None")
        y = column_or_1d(unmasked(y), warn=True)
        check_consistent_length(numbers, y)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) > 2:
            raise ValueError(
                "Only binary classification is supported. The type of the target is "
                f"multiclass: there are {len(self.classes_)} classes"
            )
        if len(self.classes_) < 2:
            raise ValueError("y has 1 class; the classifier needs 2 classes")
        weights = weights_of(sample_weight, numbers)
        if weights is not None and len(np.unique(codes[weights > 0])) < 2:
            raise ValueError("rows of positive weight have 1 class; 2 are needed")
        self.factors_ = list(labels)
        family = Binomial(link=self.link)
        self._maximise(family, numbers, codes.astype(float), labels, slopes, weights)
        return self

    def _coefficients(self, whole: np.ndarray) -> None:
        super()._coefficients(whole)
        self.coef_ = self.coef_[None]
        self.intercept_ = np.array([self.intercept_])

    def decision_function(self, X: Any, groups: Any = None) -> np.ndarray:
        """(n,) linear predictors of the second class."""
        return self._predicted(X, groups, "link")

    def predict_proba(self, X: Any, groups: Any = None) -> np.ndarray:
        """(n, 2) probabilities, with the random effects of known groups."""
        p = self._predicted(X, groups, "response")
        return np.column_stack([1 - p, p])

    def predict(self, X: Any, groups: Any = None) -> np.ndarray:
        """(n,) the class of the larger probability."""
        second = self.decision_function(X, groups) > 0
        return self.classes_[second.astype(int)]

    def score(
        self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None
    ) -> float:
        """Share of right predictions."""
        return accuracy_score(y, self.predict(X, groups), sample_weight=sample_weight)
