"""Estimates: what a fit found, as NumPy arrays in the user's coordinates, no names.

Random effects are b = Lambda u, u ~ N(0, sigma^2 I); one Lambda a term, lower
triangular with diagonal >= 0, so that a term's covariance is sigma^2 Lambda Lambda'.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from jaxglmm._brief import brief


@brief
@dataclass(frozen=True)
class Estimates:
    """Point estimates of a mixed model.

    beta: (p,); vcov: (p, p) covariance of beta (None where it is found when asked for)
    sigma: residual standard deviation; 1 in a generalised model, whose covariances
        Lambda Lambda' stand alone
    lam: a (q, q) relative Cholesky factor a term; theta: (m,) its free entries, column
        by column of the lower triangle, term by term (lme4's order)
    b: a (J, q) array of conditional modes a term
    criterion: -2 log-likelihood with all constants (-2 REML log-likelihood where REML)
    decrement: the Newton decrement at the end, in units of the criterion
    share: residual variance over that of least squares, both under the weights
    phi: (n_phi,) logarithms of a generalised model's dispersion parameters
    """

    beta: np.ndarray
    vcov: np.ndarray | None
    sigma: float
    lam: tuple[np.ndarray, ...]
    theta: np.ndarray
    b: tuple[np.ndarray, ...]
    criterion: float
    reml: bool
    converged: bool
    singular: bool
    status: int
    n_iter: int
    decrement: float
    share: float = 1.0
    phi: np.ndarray = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True)
class Unread:
    """Estimates that are made when they are read; ``criterion`` is known before.

    Of many refits only the likelihood may be asked for, and the way back to the user's
    coordinates takes as long as the search does.
    """

    made: Callable[[], Estimates]
    criterion: float
