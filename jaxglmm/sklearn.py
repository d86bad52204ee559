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

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.metrics import accuracy_score, r2_score
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import (
        _check_sample_weight,
        check_array,
        check_consistent_length,
        check_is_fitted,
        column_or_1d,
        validate_data,
    )
except ImportError as error:
    raise ImportError(
        "these estimators need scikit-learn 1.6 or newer: pip install "
        "'jaxglmm[sklearn]'"
    ) from error

from jaxglmm._errors import JaxGLMMWarning, NewLevelsWarning
from jaxglmm.api.models import glmm, lmm
from jaxglmm.formula.matrix import unmasked
from jaxglmm.formula.reading import is_text, not_numeric
from jaxglmm.formula.tables import read_column

GROUP = "group"


class _MixedModel(BaseEstimator):
    """What the estimators share: columns, groups, and the way to a fit."""

    groups: Any
    random_slopes: Any
    random_intercept: bool
    fit_intercept: bool
    correlated: bool
    max_iter: int
    tol: float

    # X as numbers, labels and slopes --------------------------------------------------

    def _read(self, X: Any, reset: bool) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """X as numbers (n, p), and the labels that are columns of it."""
        least = 2 if reset else 1
        X = unmasked(X)
        _refuse_text(X, [] if self.groups is None else _text_places(self.groups, X))
        if self.groups is None:
            numbers = validate_data(
                self, X, reset=reset, dtype=np.float64, ensure_min_samples=least
            )
            return numbers, {}
        if np.ndim(X) != 2 and not hasattr(X, "columns"):
            raise ValueError(
                f"Expected a 2-dimensional container, got {np.ndim(X)} dimensions. "
                "Reshape your data"
            )
        validate_data(self, X, reset=reset, skip_check_array=True)
        names = _columns(X)
        chosen = _places(self.groups, names, X)
        labels = {str(_name(names, j)): _column(X, j) for j in chosen}
        rest = _without(X, chosen)
        if rest.shape[1] == 0:
            return np.zeros((len(rest), 0)), labels
        rest = check_array(
            rest, dtype=np.float64, estimator=self, ensure_min_samples=least
        )
        return rest, labels

    def _design(self, X: np.ndarray) -> np.ndarray:
        """(n, p) with the intercept first."""
        if not self.fit_intercept:
            return X
        return np.column_stack([np.ones(len(X)), X])

    def _slopes(self, X: np.ndarray, names: Sequence[Any] | None) -> dict:
        """Name -> values of the columns whose slopes vary."""
        chosen = [] if self.random_slopes is None else list(self.random_slopes)
        out = {}
        for item in chosen:
            j = self._slope_place(item, names)
            out[f"slope {item}"] = X[:, j]
        return out

    def _slope_place(self, item: Any, names: Sequence[Any] | None) -> int:
        kept = self._kept_
        if isinstance(item, str):
            if names is None or item not in names:
                raise ValueError(f"random_slopes: no column {item!r} in X")
            item = list(names).index(item)
        if int(item) not in kept:
            raise ValueError(
                f"random_slopes: column {item} of X is no number, or not there"
            )
        return kept.index(int(item))

    def _labels(self, given: Any, columns: dict, n: int) -> dict[str, np.ndarray]:
        """Labels of all factors, from columns of X and from ``groups=``."""
        out = dict(columns)
        if given is None:
            return out
        if isinstance(given, Mapping) or hasattr(given, "columns"):
            beside = {str(k): np.asarray(unmasked(given[k])) for k in given}
        else:
            beside = {GROUP: column_or_1d(unmasked(given))}
        for name, values in beside.items():
            if name in out:
                raise ValueError(f"groups: {name!r} is a column of X already")
            check_consistent_length(values, np.empty(n))
            out[name] = values
        return out

    # Fits -----------------------------------------------------------------------------

    def _prepare(self, X: Any, groups: Any) -> tuple[np.ndarray, dict, dict]:
        numbers, columns = self._read(X, reset=True)
        names = _columns(X)
        width = numbers.shape[1] + len(columns)
        taken = [] if self.groups is None else _places(self.groups, names, X)
        self._kept_ = [j for j in range(width) if j not in taken]
        labels = self._labels(groups, columns, len(numbers))
        slopes = self._slopes(numbers, names)
        if not labels and slopes:
            raise ValueError("random_slopes vary by groups, and there are none")
        return numbers, labels, slopes

    def _model(self, y, X, labels, slopes, weights) -> dict[str, Any]:
        """Arguments of ``jg.lmm`` and ``jg.glmm`` in their array form."""
        if not self.random_intercept and not slopes:
            raise ValueError("without random_intercept there must be random_slopes")
        terms = (["1"] if self.random_intercept else []) + list(slopes)
        return {
            "formula": y,
            "data": self._design(X),
            "groups": labels,
            "random_effects": dict.fromkeys(labels, terms),
            "random_data": slopes or None,
            "correlated": bool(self.correlated),
            "weights": weights,
            "max_iter": self.max_iter,
            "tol": self.tol,
        }

    def _keep(self, fit: Any, width: int) -> None:
        """Coefficients by column; a dropped column has coefficient zero."""
        whole = np.zeros(width + bool(self.fit_intercept))
        kept = getattr(fit.design.recipe, "kept", None)
        if kept is None or len(kept) != len(fit.coefficients):
            kept = range(len(fit.coefficients))
        whole[list(kept)] = fit.coefficients
        self.fit_ = fit
        self._coefficients(whole)
        self.n_iter_ = max(int(fit.n_iter), 1)
        self.random_effects_ = fit.ranef if fit.design.terms else {}

    def _coefficients(self, whole: np.ndarray) -> None:
        if self.fit_intercept:
            self.intercept_, self.coef_ = float(whole[0]), whole[1:]
        else:
            self.intercept_, self.coef_ = 0.0, whole

    def _least_squares(self, X, y, weights) -> None:
        """A linear model without random effects."""
        _say_no_groups(self)
        root = np.ones(len(y)) if weights is None else np.sqrt(weights)
        design = self._design(X) * root[:, None]
        self.fit_, self.random_effects_, self.n_iter_ = None, {}, 1
        self._coefficients(np.linalg.lstsq(design, y * root, rcond=None)[0])

    # Predictions ----------------------------------------------------------------------

    def _predicted(self, X: Any, groups: Any, kind: str) -> np.ndarray:
        """(n,) means ("response") or linear predictors ("link")."""
        check_is_fitted(self)
        numbers, columns = self._read(X, reset=False)
        if not self.factors_:
            if groups is not None:
                raise ValueError("groups were not given to fit, so predict takes none")
            return self._without_groups(numbers, kind)
        labels = self._labels(groups, columns, len(numbers))
        new = {"X": self._design(numbers), "groups": labels}
        slopes = self._slopes(numbers, _columns(X))
        if slopes:
            new["random_data"] = slopes
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NewLevelsWarning)
            fit = self.fit_
            assert fit is not None
            return np.asarray(fit.predict(new, type=kind))

    def _without_groups(self, X: np.ndarray, kind: str) -> np.ndarray:
        return X @ self.coef_ + self.intercept_


class LMMRegressor(RegressorMixin, _MixedModel):
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
        y = _numbers(self, y, len(numbers))
        weights = _weights(sample_weight, numbers)
        self.factors_ = list(labels)
        if not labels:
            self._least_squares(numbers, y, weights)
            return self
        fit = lmm(
            **self._model(y, numbers, labels, slopes, weights), method=self.method
        )
        self._keep(fit, numbers.shape[1])
        return self

    def predict(self, X: Any, groups: Any = None) -> np.ndarray:
        """(n,) means, with the random effects of known groups.

        Args:
            X: (n, p) as in ``fit``.
            groups: labels beside X, where ``fit`` had them.
        """
        return self._predicted(X, groups, "response")

    def score(
        self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None
    ) -> float:
        """R squared of the predictions."""
        return r2_score(y, self.predict(X, groups), sample_weight=sample_weight)


class GLMMRegressor(RegressorMixin, _MixedModel):
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
        y = _numbers(self, y, len(numbers))
        weights = _weights(sample_weight, numbers)
        self.factors_ = list(labels)
        if not labels and self._is_least_squares():
            self._least_squares(numbers, y, weights)
            return self
        _fit_generalised(self, self.family, numbers, y, labels, slopes, weights)
        return self

    def _is_least_squares(self) -> bool:
        from jaxglmm.model.families import Gaussian

        if isinstance(self.family, Gaussian):
            return self.family.link.name == "identity"
        return str(self.family).lower() == "gaussian"

    def predict(self, X: Any, groups: Any = None) -> np.ndarray:
        """(n,) means, with the random effects of known groups."""
        return self._predicted(X, groups, "response")

    def score(
        self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None
    ) -> float:
        """R squared of the predicted means."""
        return r2_score(y, self.predict(X, groups), sample_weight=sample_weight)

    def _without_groups(self, X: np.ndarray, kind: str) -> np.ndarray:
        if self.fit_ is None:
            return super()._without_groups(X, kind)
        fit = self.fit_
        assert fit is not None
        return np.asarray(fit.predict(_table(X), type=kind))


class GLMMClassifier(ClassifierMixin, _MixedModel):
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
        from jaxglmm.model.families import Binomial

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
        weights = _weights(sample_weight, numbers)
        if weights is not None and len(np.unique(codes[weights > 0])) < 2:
            raise ValueError("rows of positive weight have 1 class; 2 are needed")
        self.factors_ = list(labels)
        family = Binomial(link=self.link)
        _fit_generalised(
            self, family, numbers, codes.astype(float), labels, slopes, weights
        )
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

    def _without_groups(self, X: np.ndarray, kind: str) -> np.ndarray:
        fit = self.fit_
        assert fit is not None
        return np.asarray(fit.predict(_table(X), type=kind))


# Helpers ------------------------------------------------------------------------------


def _fit_generalised(
    self: Any, family: Any, X: np.ndarray, y: np.ndarray, labels, slopes, weights
) -> None:
    """``jg.glmm`` with groups, or without: then by a formula of plain columns."""
    if labels:
        arguments = self._model(y, X, labels, slopes, weights)
        fit = glmm(**arguments, family=family, method=self.method)
        self._keep(fit, X.shape[1])
        return
    _say_no_groups(self)
    table = _table(X)
    right = " + ".join(["1" if self.fit_intercept else "0", *table])
    fit = glmm(
        f"y ~ {right}",
        {**table, "y": y},
        family=family,
        method=self.method,
        weights=weights,
        max_iter=self.max_iter,
        tol=self.tol,
    )
    whole = np.zeros(X.shape[1] + bool(self.fit_intercept))
    places = ["(Intercept)", *table] if self.fit_intercept else list(table)
    for name, value in fit.fixef.items():
        whole[places.index(name)] = value
    self.fit_, self.random_effects_ = fit, {}
    self.n_iter_ = max(int(fit.n_iter), 1)
    self._coefficients(whole)


def _say_no_groups(self: Any) -> None:
    warnings.warn(
        f"{type(self).__name__} without groups has no random effects. Name the column "
        "of X that says which rows belong together, groups='...', or pass fit(X, y, "
        "groups=labels)",
        JaxGLMMWarning,
        stacklevel=4,
    )


def _table(X: np.ndarray) -> dict[str, np.ndarray]:
    """Columns by names that formulas can read."""
    return {f"x{j}": X[:, j] for j in range(X.shape[1])}


def _numbers(self: Any, y: Any, n: int) -> np.ndarray:
    """A response of numbers (n,)."""
    if y is None:
        raise ValueError("requires y to be passed, but the target y is None")
    y = check_array(
        column_or_1d(unmasked(y), warn=True),
        ensure_2d=False,
        dtype=np.float64,
        estimator=self,
    )
    check_consistent_length(y, np.empty(n))
    return y


def _weights(given: Any, X: np.ndarray) -> np.ndarray | None:
    if given is None:
        return None
    given = unmasked(given)
    return _check_sample_weight(given, X, dtype=np.float64, ensure_non_negative=True)


def _text_places(groups: Any, X: Any) -> list[int]:
    """Columns of groups, where X has columns to speak of."""
    return _places(groups, _columns(X), X) if np.ndim(X) == 2 else []


def _refuse_text(X: Any, groups: list[int]) -> None:
    """Refuse text among the numbers: ``"308"`` is a label, not the number 308."""
    if not hasattr(X, "columns"):
        return
    for j, name in enumerate(X.columns):
        if j in groups:
            continue
        column = read_column(str(name), X.iloc[:, j] if hasattr(X, "iloc") else X[name])
        if is_text(column):
            raise ValueError(
                f"X: {not_numeric(column)}. Name it in groups= if it says which rows "
                "belong together, or encode it as numbers"
            )


def _columns(X: Any) -> list[Any] | None:
    """Names of the columns of a frame."""
    return list(X.columns) if hasattr(X, "columns") else None


def _places(wanted: Any, names: list[Any] | None, X: Any) -> list[int]:
    """Positions of columns by name or position."""
    out = []
    for item in wanted if isinstance(wanted, list | tuple) else [wanted]:
        if isinstance(item, str):
            if names is None or item not in names:
                raise ValueError(f"groups: no column {item!r} in X")
            out.append(names.index(item))
        else:
            width = np.shape(X)[1]
            if not -width <= int(item) < width:
                raise ValueError(f"groups: X has {width} columns, none at {item}")
            out.append(int(item) % width)
    return out


def _name(names: list[Any] | None, j: int) -> Any:
    return f"{GROUP} {j}" if names is None else names[j]


def _column(X: Any, j: int) -> np.ndarray:
    if hasattr(X, "iloc"):
        return np.asarray(X.iloc[:, j])
    if hasattr(X, "columns"):
        return np.asarray(X[X.columns[j]])
    return np.asarray(X)[:, j]


def _without(X: Any, columns: list[int]) -> Any:
    if not columns:
        return X
    if hasattr(X, "iloc"):
        return X.iloc[:, [j for j in range(X.shape[1]) if j not in columns]]
    if hasattr(X, "columns"):
        return X[[c for j, c in enumerate(X.columns) if j not in columns]]
    return np.delete(np.asarray(X), columns, axis=1)


__all__ = ["GLMMClassifier", "GLMMRegressor", "LMMRegressor"]
