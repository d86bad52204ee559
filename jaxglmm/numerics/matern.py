"""Matern's correlation, with derivatives in its smoothness too.

From K_nu(x) = int_0^inf exp(-x cosh t) cosh(nu t) dt (DLMF 10.32.9): the trapezoidal
rule converges geometrically there (Trefethen and Weideman 2014, SIAM Review 56, 385),
and its terms are elementary functions of x and nu, so that it is differentiated as it
stands.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxglmm.numerics.array_namespace import functions

STEP, NODES = 0.2, 160  # to t = 32, where exp(-x cosh t) is nothing for x > 1e-11
LEAST = 1e-11
SHIFT = 9  # Stirling's series from here on
LOG_2, HALF_LOG_2PI = 0.6931471805599453, 0.9189385332046727
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360)


def matern(x: Any, nu: Any) -> Any:
    """x^nu K_nu(x) / (2^(nu - 1) Gamma(nu)), and 1 at x = 0; x (k, *lanes)."""
    xp = functions(nu)
    inside = xp.where(x > LEAST, x, 1.0)
    log_scale = nu * xp.log(inside) + (1.0 - nu) * LOG_2 - _log_gamma(nu)
    t = np.arange(NODES + 1).reshape(-1, *[1] * inside.ndim) * STEP
    weight = np.where(t == 0.0, 0.25 * STEP, 0.5 * STEP)
    held, along = log_scale[None] - inside[None] * np.cosh(t), nu[None] * t
    total = xp.total(weight * (xp.exp(held + along) + xp.exp(held - along)))
    return xp.where(x > LEAST, total, 1.0 + 0.0 * total)


def _log_gamma(z: Any) -> Any:
    """log Gamma, for NumPy and JAX alike."""
    xp = functions(z)
    product, w = z, z + float(SHIFT)
    for k in range(1, SHIFT):
        product = product * (z + float(k))
    r = 1.0 / w
    r2, tail = r * r, 0.0 * z
    for c in reversed(_STIRLING):
        tail = tail * r2 + c
    return (w - 0.5) * xp.log(w) - w + HALF_LOG_2PI + r * tail - xp.log(product)
