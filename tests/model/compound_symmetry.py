"""A covariance that the package has not: q standard deviations, one correlation.

Nonlinear in theta, and with fewer thetas than entries: what the free ones never show.
z is rho on the whole line: rho = (e^z - 1) / (e^z + q - 1), from -1 / (q - 1) to 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from doors import AbstractCovariance, ColumnMaps, functions


@dataclass(frozen=True)
class CompoundSymmetry(AbstractCovariance):
    q: int
    maps: ClassVar[ColumnMaps] = ColumnMaps.SCALES

    @property
    def m(self):
        return self.q + 1

    @property
    def bounds(self):
        return ((0.0, np.inf),) * self.q + ((-np.inf, np.inf),)

    def values(self, theta):
        *sd, z = theta
        xp = functions(z)
        grown = xp.exp(z)
        rho = (grown - 1) / (grown + self.q - 1)
        out = []
        for j in range(self.q):
            before, here = 1 + (j - 1) * rho, 1 + j * rho
            pivot = xp.sqrt((1 - rho) * here / before) if j else xp.ones_like(rho)
            below = rho * xp.sqrt((1 - rho) / (before * here)) if j else rho
            out += [sd[i] * (pivot if i == j else below) for i in range(j, self.q)]
        return out

    def start(self, sd):
        return [*sd, 0 * sd[0]]

    def theta(self, lam):
        sd = np.sqrt(np.sum(lam**2, axis=-1))
        cov = lam @ np.swapaxes(lam, -1, -2)
        rho = cov[..., 1, 0] / (sd[..., 1] * sd[..., 0])
        z = np.log1p((self.q - 1) * rho) - np.log1p(-rho)
        return np.concatenate([sd, z[..., None]], axis=-1)

    def sigma(self, theta):
        """(q, q) covariance, from its definition."""
        *sd, z = theta
        xp = functions(z)
        rho = (xp.exp(z) - 1) / (xp.exp(z) + self.q - 1)
        return [
            [sd[i] * sd[j] * (1.0 if i == j else rho) for j in range(self.q)]
            for i in range(self.q)
        ]
