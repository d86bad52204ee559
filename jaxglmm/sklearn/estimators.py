"""The estimators: ``LMMRegressor``, ``GLMMRegressor``, ``GLMMClassifier``."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, column_or_1d

from jaxglmm.api.models import lmm
from jaxglmm.formula.matrix import unmasked
from jaxglmm.model.families import Binomial, Gaussian, family_from
from jaxglmm.sklearn.base import MixedModel, Regressor
from jaxglmm.sklearn.classes import coded_family, in_order, order_of
from jaxglmm.sklearn.reading import numbers_of, weights_of
from jaxglmm.sklearn.tables import names_of

KINDS = ("ordinal", "nominal")  # of families of categories


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
        zi: right side of a formula of the probability of added zeros, as for
            ``jg.glmm``: "~ 1", "~ dose"; columns of an array are x0, x1, ... without
            those of groups.
        dispersion: the same of the dispersion.

    Predictions are means with the added zeros in them; ``fit_.predict`` has the others.

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
        zi: Any = None,
        dispersion: Any = None,
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
        self.zi = zi
        self.dispersion = dispersion

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
        if family_from(self.family).family_kind in KINDS:
            raise ValueError(
                f"family={self.family!r} is of categories, which have no mean: use "
                "GLMMClassifier(family=...)"
            )
        if self.zi is not None or self.dispersion is not None:
            given = (numbers, self._names(X), y, labels, slopes, weights)
            parts = {"zi": self.zi, "dispersion": self.dispersion}
            self._by_formula(self.family, *given, **parts)
            assert self.fit_ is not None
            columns = names_of(self._names(X), numbers.shape[1])
            self._coefficients(self._whole(self.fit_.fixef, columns))
            return self
        if not labels and self._is_least_squares():
            self._least_squares(numbers, y, weights)
            return self
        self._maximise(self.family, numbers, y, labels, slopes, weights)
        return self

    def _is_least_squares(self) -> bool:
        if isinstance(self.family, Gaussian):
            return self.family.link.name == "identity"
        return str(self.family).lower() == "gaussian"


def _two_classes(self: GLMMClassifier) -> bool:
    """Whether there is one linear predictor to decide by."""
    if self.family is not None:
        raise AttributeError(
            "decision_function is of two classes; family= has predict_proba"
        )
    return True


class GLMMClassifier(ClassifierMixin, MixedModel):
    """Mixed logistic regression of two classes, or a mixed model of more.

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
        family: None, two classes by ``link``; "cumulative" or ``jg.Cumulative(...)``,
            ordered classes (numbers, an ordered categorical, or text with the family's
            ``levels``); "multinomial" or ``jg.Multinomial(...)``, others.

    Attributes:
        classes_: the labels, of ordered ones in their order; two classes: coefficients
            are about the second.
        coef_: (1, p) slopes; of unordered classes (K - 1, p) against the first.
        intercept_: (1,) or (K - 1,) intercepts; of ordered classes the K - 1
            thresholds, P(Y <= k) = F(intercept_k - x'coef).

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
        family: Any = None,
    ):
        self.family = family
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
        tags.classifier_tags.multi_class = self.family is not None
        return tags

    def fit(
        self, X: Any, y: Any, groups: Any = None, sample_weight: Any = None
    ) -> GLMMClassifier:
        """Fit; y holds labels of any kind, two where there is no ``family``."""
        numbers, labels, slopes = self._prepare(X, groups)
        if y is None:
            raise ValueError("requires y to be passed, but the target y is None")
        family, given = self._family(), y
        y = column_or_1d(unmasked(y), warn=True)
        check_consistent_length(numbers, y)
        check_classification_targets(y)
        order = order_of(given, family)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) > 2 and family is None:
            raise ValueError(
                "Only binary classification is supported. The type of the target is "
                f"multiclass: there are {len(self.classes_)} classes. Say which model: "
                "family='cumulative' where they have an order, else 'multinomial'"
            )
        if order is not None:
            self.classes_, codes = in_order(y, order)
        if len(self.classes_) < 2:
            raise ValueError("y has 1 class; the classifier needs 2 classes")
        weights = weights_of(sample_weight, numbers)
        if weights is not None and len(np.unique(codes[weights > 0])) < 2:
            raise ValueError("rows of positive weight have 1 class; 2 are needed")
        self.factors_ = list(labels)
        if family is None:
            binary = Binomial(link=self.link)
            whole = (numbers, codes.astype(float), labels, slopes, weights)
            self._maximise(binary, *whole)
            return self
        if not self.fit_intercept:
            raise ValueError(
                "classes have intercepts or thresholds of their own: fit_intercept=True"
            )
        family = coded_family(family, len(self.classes_))
        rest = (self._names(X), codes, labels, slopes, weights)
        self._by_formula(family, numbers, *rest)
        self._of_classes(family, names_of(self._names(X), numbers.shape[1]))
        return self

    def _family(self) -> Any:
        """The family of classes; None for two."""
        if self.family is None:
            return None
        family = family_from(self.family)
        if family.family_kind not in KINDS:
            raise ValueError(
                f"family={self.family!r} has no classes: 'cumulative', 'multinomial', "
                "or None for two classes"
            )
        return family

    def _of_classes(self, family: Any, columns: list[str]) -> None:
        fit = self.fit_
        assert fit is not None
        if family.family_kind == "ordinal":
            self.intercept_ = fit.thresholds.to_numpy(float)
            own = self._whole({**fit.fixef, "(Intercept)": 0.0}, columns)
            self.coef_ = own[None, 1:]
            return
        found: Any = fit.fixef  # by the name of a class's predictor, too
        whole = [self._whole(found[name], columns) for name in family.predictors]
        self.intercept_ = np.array([each[0] for each in whole])
        self.coef_ = np.array([each[1:] for each in whole])

    def _coefficients(self, whole: np.ndarray) -> None:
        super()._coefficients(whole)
        self.coef_ = self.coef_[None]
        self.intercept_ = np.array([self.intercept_])

    @available_if(_two_classes)
    def decision_function(self, X: Any, groups: Any = None) -> np.ndarray:
        """(n,) linear predictors of the second class."""
        return self._predicted(X, groups, "link")

    def predict_proba(self, X: Any, groups: Any = None) -> np.ndarray:
        """(n, K) probabilities, with the random effects of known groups."""
        if self.family is not None:
            return self._predicted(X, groups, "probs")
        p = self._predicted(X, groups, "response")
        return np.column_stack([1 - p, p])

    def predict(self, X: Any, groups: Any = None) -> np.ndarray:
        """(n,) the most probable class."""
        if self.family is not None:
            best = np.argmax(self.predict_proba(X, groups), axis=1)
            return self.classes_[best]
        second = self.decision_function(X, groups) > 0
        return self.classes_[second.astype(int)]

    def score(
        self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None
    ) -> float:
        """Share of right predictions."""
        return accuracy_score(y, self.predict(X, groups), sample_weight=sample_weight)
