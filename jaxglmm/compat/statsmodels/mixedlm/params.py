"""The parameters of a mixed linear model, and the vectors that they are packed into.

One model, three parameterisations of the covariance in a group with random-effects
design Z and residual variance ``scale``:

    natural      scale I + Z cov_re Z'             what a user reads
    profile      I + Z cov_re1 Z', cov_re = scale cov_re1: the profiled likelihood
    square root  L with L L' = cov_re1             where covariances cannot go wrong

A packed vector is (fixed effects, lower triangle row by row, variance components); the
components are stored as roots where, and only where, the triangle is that of L
(Lindstrom and Bates 1988, JASA 83, 1014-1022). Three more coordinates of cov_re1 come
with their inverses: theta (lme4's: columns of L), the log-Cholesky (Pinheiro and Bates
1996: theta with logarithms of the diagonal), and standard deviations with correlations.
"""

from __future__ import annotations

import numpy as np

from jaxglmm._errors import ModelError

NEGATIVE = 1e-9  # eigenvalue over the largest, below which a matrix is not a covariance


def root(covariance: np.ndarray) -> np.ndarray:
    """Lower triangular L (k, k), diagonal >= 0, with L L' = ``covariance``.

    Singular covariances have one too: the LQ factor of a symmetric root.

    Raises:
        ModelError: a negative eigenvalue, with its size.

    >>> root(np.array([[4.0, 2.0], [2.0, 1.0]])).tolist()
    [[2.0, 0.0], [1.0, 0.0]]
    """
    S = np.asarray(covariance, float)
    if S.size == 0:
        return np.zeros_like(S)
    try:
        return np.linalg.cholesky(S)
    except np.linalg.LinAlgError:
        pass
    values, vectors = np.linalg.eigh((S + S.T) / 2)
    if not values[0] >= -NEGATIVE * max(values[-1], 0.0):
        raise ModelError(
            "the covariance of the random effects is not positive semidefinite: its "
            f"smallest eigenvalue is {values[0]:.3g}, its largest {values[-1]:.3g}"
        )
    half = vectors * np.sqrt(np.maximum(values, 0.0))
    L = np.linalg.qr(half.T, mode="r").T
    L = L * np.where(np.diagonal(L) < 0, -1.0, 1.0)
    size = np.sqrt(np.sum(L**2, axis=1)).max()
    L[np.abs(L) < 1e-12 * size] = 0.0
    return L


class MixedLMParams:
    """A point in the parameter space of a ``MixedLM``, its scale profiled out.

    Args:
        k_fe: number of fixed effects.
        k_re: number of random effects a group, variance components apart.
        k_vc: number of variance components.

    Attributes ``fe_params`` (k_fe,), ``cov_re`` (k_re, k_re), ``vcomp`` (k_vc,), of the
    profile parameterisation. The same class serves as a mask (``free=`` of ``fit``).

    >>> import numpy as np
    >>> p = MixedLMParams.from_components(
    ...     fe_params=np.array([1.0]), cov_re=np.array([[4.0, 2.0], [2.0, 5.0]])
    ... )
    >>> p.get_packed(use_sqrt=True).tolist(), p.get_packed(use_sqrt=False).tolist()
    ([2.0, 1.0, 2.0], [4.0, 2.0, 5.0])
    >>> back = MixedLMParams.from_packed([2.0, 1.0, 2.0], 1, 2, True, False)
    >>> back.cov_re.tolist()
    [[4.0, 2.0], [2.0, 5.0]]
    """

    def __init__(self, k_fe: int, k_re: int, k_vc: int):
        self.k_fe, self.k_re, self.k_vc = k_fe, k_re, k_vc
        self.k_re2 = k_re * (k_re + 1) // 2
        self.k_tot = self.k_fe + self.k_re2 + self.k_vc
        self._ix = np.tril_indices(k_re)
        self.fe_params = np.zeros(k_fe)
        self.cov_re = np.eye(k_re)
        self.vcomp = np.ones(k_vc)

    @staticmethod
    def from_packed(params, k_fe, k_re, use_sqrt, has_fe) -> MixedLMParams:
        """From a packed vector.

        Args:
            params: the vector.
            k_fe: number of fixed effects.
            k_re: number of random effects a group.
            use_sqrt: the triangle is that of the root, and components are roots.
            has_fe: the fixed effects come first (else they are set to zero).
        """
        values = np.asarray(params, float)
        first = k_fe if has_fe else 0
        k_re2 = k_re * (k_re + 1) // 2
        k_vc = len(values) - first - k_re2
        if values.ndim != 1 or k_vc < 0:
            raise ModelError(
                f"params has shape {values.shape}; a model with {k_fe} fixed effects "
                f"and {k_re} random effects needs at least {first + k_re2} numbers"
            )
        out = MixedLMParams(k_fe, k_re, k_vc)
        if has_fe:
            out.fe_params = values[:k_fe].copy()
        triangle = np.zeros((k_re, k_re))
        triangle[out._ix] = values[first : first + k_re2]
        components = values[first + k_re2 :].copy()
        if use_sqrt:
            out.cov_re, out.vcomp = triangle @ triangle.T, components**2
        else:
            out.cov_re = triangle + np.tril(triangle, -1).T
            out.vcomp = components
        return out

    @staticmethod
    def from_components(
        fe_params=None, cov_re=None, cov_re_sqrt=None, vcomp=None
    ) -> MixedLMParams:
        """From its parts.

        Args:
            fe_params: (k_fe,) fixed effects; none where left out.
            cov_re: (k_re, k_re) covariance of the random effects.
            cov_re_sqrt: (k_re, k_re) its lower triangular root instead.
            vcomp: (k_vc,) variance components.
        """
        fe = np.zeros(0) if fe_params is None else np.asarray(fe_params, float)
        components = np.zeros(0) if vcomp is None else np.asarray(vcomp, float)
        if cov_re_sqrt is not None:
            half = np.asarray(cov_re_sqrt, float)
            covariance = half @ half.T
        elif cov_re is not None:
            covariance = np.asarray(cov_re, float)
        else:
            covariance = np.zeros((0, 0))
        out = MixedLMParams(len(fe), len(covariance), len(components))
        out.fe_params, out.cov_re, out.vcomp = fe, covariance, components
        return out

    def copy(self) -> MixedLMParams:
        """A copy that shares nothing."""
        out = MixedLMParams(self.k_fe, self.k_re, self.k_vc)
        out.fe_params = np.array(self.fe_params, float)
        out.cov_re = np.array(self.cov_re, float)
        out.vcomp = np.array(self.vcomp, float)
        return out

    def get_packed(self, use_sqrt: bool, has_fe: bool = False) -> np.ndarray:
        """The packed vector.

        Args:
            use_sqrt: the triangle of the root, and roots of the components.
            has_fe: the fixed effects first.
        """
        matrix = root(self.cov_re) if use_sqrt else np.asarray(self.cov_re, float)
        vcomp = np.asarray(self.vcomp, float)
        if use_sqrt and (vcomp < 0).any():
            raise ModelError(f"variance components {vcomp.tolist()} have no roots")
        parts = [np.asarray(self.fe_params, float)] if has_fe else []
        parts += [matrix[self._ix], np.sqrt(vcomp) if use_sqrt else vcomp]
        return np.concatenate(parts)

    # Other coordinates of the covariance ----------------------------------------------

    @property
    def theta(self) -> np.ndarray:
        """(k_re2 + k_vc,) lme4's theta: the root column by column, then the components.

        >>> p = MixedLMParams.from_components(cov_re=np.array([[4.0, 2], [2, 5]]))
        >>> p.theta.tolist()
        [2.0, 1.0, 2.0]
        """
        L = root(self.cov_re)
        columns = [L[j:, j] for j in range(self.k_re)]
        return np.concatenate([*columns, np.sqrt(self.vcomp)])

    @classmethod
    def from_theta(cls, theta, k_re: int, fe_params=None) -> MixedLMParams:
        """From lme4's theta."""
        values = np.asarray(theta, float)
        L, start = np.zeros((k_re, k_re)), 0
        for j in range(k_re):
            L[j:, j] = values[start : start + k_re - j]
            start += k_re - j
        return cls.from_components(fe_params, cov_re_sqrt=L, vcomp=values[start:] ** 2)

    @property
    def log_cholesky(self) -> np.ndarray:
        """(k_re2 + k_vc,) theta with logarithms of what cannot be negative.

        Raises:
            ModelError: a singular covariance, which is at minus infinity there.
        """
        theta, positive = self.theta, self._positive()
        if (theta[positive] <= 0).any():
            raise ModelError(
                "a singular covariance is at infinity in log-Cholesky coordinates; use "
                "theta or sd_correlation"
            )
        theta[positive] = np.log(theta[positive])
        return theta

    @classmethod
    def from_log_cholesky(cls, values, k_re: int, fe_params=None) -> MixedLMParams:
        """From log-Cholesky coordinates."""
        theta = np.array(values, float)
        positive = cls(0, k_re, len(theta) - k_re * (k_re + 1) // 2)._positive()
        theta[positive] = np.exp(theta[positive])
        return cls.from_theta(theta, k_re, fe_params)

    def _positive(self) -> np.ndarray:
        """Which entries of theta are diagonals or components."""
        diagonal = [i == j for j in range(self.k_re) for i in range(j, self.k_re)]
        return np.array(diagonal + [True] * self.k_vc, bool)

    @property
    def sd_correlation(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Standard deviations (k_re,), correlations (k_re, k_re), roots of components.

        The correlation of something constant is given as zero.
        """
        sd = np.sqrt(np.diagonal(self.cov_re))
        divisor = np.where(sd > 0, sd, 1.0)
        corr = self.cov_re / np.outer(divisor, divisor)
        corr[np.diag_indices(self.k_re)] = 1.0
        return sd, corr, np.sqrt(self.vcomp)

    @classmethod
    def from_sd_correlation(cls, sd, corr, vc_sd=(), fe_params=None) -> MixedLMParams:
        """From standard deviations, correlations and roots of the components."""
        s = np.asarray(sd, float)
        return cls.from_components(
            fe_params,
            cov_re=np.asarray(corr, float) * np.outer(s, s),
            vcomp=np.asarray(vc_sd, float) ** 2,
        )

    def __repr__(self) -> str:
        return (
            f"MixedLMParams(fe_params={np.asarray(self.fe_params).tolist()}, "
            f"cov_re={np.asarray(self.cov_re).tolist()}, "
            f"vcomp={np.asarray(self.vcomp).tolist()})"
        )
