"""What the estimators share: from X, y and groups to a fit, and to predictions."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils.validation import (
    check_array,
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

from jaxglmm._errors import JaxGLMMWarning, NewLevelsWarning
from jaxglmm.api.models import glmm
from jaxglmm.formula import notices
from jaxglmm.formula.matrix import unmasked
from jaxglmm.sklearn.reading import (
    GROUP,
    as_columns,
    column_of,
    columns_of,
    name_of,
    places_of,
    refuse_text,
    text_places,
    without,
)
from jaxglmm.sklearn.tables import formula_of, names_of, table_of, unlike


class MixedModel(BaseEstimator):
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
        refuse_text(X, [] if self.groups is None else text_places(self.groups, X))
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
        names = columns_of(X)
        chosen = places_of(self.groups, names, X)
        labels = {str(name_of(names, j)): column_of(X, j) for j in chosen}
        rest = without(X, chosen)
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

    def _names(self, X: Any) -> list[Any] | None:
        """Names of the columns of X that are numbers."""
        names = columns_of(X)
        return None if names is None else [names[j] for j in self._kept_]

    # Fits -----------------------------------------------------------------------------

    def _prepare(self, X: Any, groups: Any) -> tuple[np.ndarray, dict, dict]:
        numbers, columns = self._read(X, reset=True)
        self._formula_ = None
        names = columns_of(X)
        width = numbers.shape[1] + len(columns)
        taken = [] if self.groups is None else places_of(self.groups, names, X)
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
        self._say_no_groups()
        root = np.ones(len(y)) if weights is None else np.sqrt(weights)
        design = self._design(X) * root[:, None]
        self.fit_, self.random_effects_, self.n_iter_ = None, {}, 1
        self._coefficients(np.linalg.lstsq(design, y * root, rcond=None)[0])

    def _maximise(
        self, family: Any, X: np.ndarray, y: np.ndarray, labels, slopes, weights
    ) -> None:
        """``jg.glmm`` with groups, or without: then by a formula of plain columns."""
        if labels:
            arguments = self._model(y, X, labels, slopes, weights)
            fit = glmm(**arguments, family=family, method=self.method)
            self._keep(fit, X.shape[1])
            return
        self._say_no_groups()
        table = as_columns(X)
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

    def _by_formula(
        self, family: Any, X: np.ndarray, names, y, labels, slopes, weights, **parts
    ) -> None:
        """``jg.glmm`` by a formula; parts: zi, dispersion, right sides over X.

        names: of the columns of X.
        """
        if not labels:
            self._say_no_groups()
        elif not self.random_intercept and not slopes:
            raise ValueError("without random_intercept there must be random_slopes")
        table = table_of(X, names, slopes, labels)
        response, columns = unlike("y", table), names_of(names, X.shape[1])
        intercepts = (bool(self.fit_intercept), bool(self.random_intercept))
        rest = (slopes, labels, intercepts, bool(self.correlated))
        self._formula_ = formula_of(response, columns, *rest)
        self.fit_ = glmm(
            self._formula_,
            {**table, response: y},
            family=family,
            method=self.method,
            weights=weights,
            max_iter=self.max_iter,
            tol=self.tol,
            **parts,
        )
        self.n_iter_ = max(int(self.fit_.n_iter), 1)
        self.random_effects_ = self.fit_.ranef if labels else {}

    def _whole(self, found: Mapping[str, float], columns: list[str]) -> np.ndarray:
        """Coefficients by name, intercept first; a dropped column has zero."""
        places = ["(Intercept)"] if self.fit_intercept else []
        return np.array([float(found.get(name, 0.0)) for name in [*places, *columns]])

    def _say_no_groups(self) -> None:
        notices.warn(
            f"{type(self).__name__} without groups has no random effects. Name the "
            "column of X that says which rows belong together, groups='...', or pass "
            "fit(X, y, groups=labels)",
            JaxGLMMWarning,
        )

    # Predictions ----------------------------------------------------------------------

    def _predicted(self, X: Any, groups: Any, kind: str) -> np.ndarray:
        """(n,) means ("response") or linear predictors ("link"); (n, K) "probs"."""
        check_is_fitted(self, "fit_")
        numbers, columns = self._read(X, reset=False)
        if not self.factors_:
            if groups is not None:
                raise ValueError("groups were not given to fit, so predict takes none")
            if self._formula_ is not None:
                return self._of_table(table_of(numbers, self._names(X), {}, {}), kind)
            return self._without_groups(numbers, kind)
        labels = self._labels(groups, columns, len(numbers))
        slopes = self._slopes(numbers, columns_of(X))
        if self._formula_ is not None:
            unknown = dict.fromkeys(self.factors_, np.full(len(numbers), None, object))
            table = table_of(numbers, self._names(X), slopes, unknown | labels)
            return self._of_table(table, kind)
        new: dict[str, Any] = {"X": self._design(numbers), "groups": labels}
        if slopes:
            new["random_data"] = slopes
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NewLevelsWarning)
            fit = self.fit_
            assert fit is not None
            return np.asarray(fit.predict(new, type=kind))

    def _of_table(self, table: dict[str, np.ndarray], kind: str) -> np.ndarray:
        """Predictions of a fit by formula."""
        fit = self.fit_
        assert fit is not None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NewLevelsWarning)
            return np.asarray(fit.predict(table, type=kind))

    def _without_groups(self, X: np.ndarray, kind: str) -> np.ndarray:
        if self.fit_ is None:  # least squares
            return X @ self.coef_ + self.intercept_
        return np.asarray(self.fit_.predict(as_columns(X), type=kind))


class Regressor(RegressorMixin, MixedModel):
    """What the estimators of means share."""

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
        """R squared of the predicted means."""
        return r2_score(y, self.predict(X, groups), sample_weight=sample_weight)
