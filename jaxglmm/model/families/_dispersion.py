"""The dispersion parameters of a family: how many, their names, scales and ranges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from jaxglmm.numerics.array_namespace import exp, functions
from jaxglmm.numerics.scales import LOG, Scale
from jaxglmm.runtime.trees import Module

END = 1e-8  # this close is at an end of a range


class DispersionParameters(Module):
    """phi (n_phi,), numbers without bounds, and the natural values that people read.

    Class attributes:
        n_phi: number of dispersion parameters; it may be an instance's own, and so may
            ``phi_names`` and ``phi_scales``.
        phi_names: what their natural values are called.
        phi_scales: the scale of each where not all are logarithms.
        phi_apart: whether each natural value is a function of its own phi alone.
        phi_range: where phi is looked for, an end one number or one a parameter; beyond
            it the likelihood is flat: the family is another one to rounding.
        phi_stops: whether the likelihood may still rise at an end of ``phi_range``.
        phi_ends: what to do where a parameter, by its name, ends up at the lower and at
            the upper end of its range.
        phi_centre: where a prior of a logarithm of a dispersion parameter is centred,
            one number or one a parameter.
        phi_in_units: whether the dispersion is measured in units of y.
    """

    n_phi: ClassVar[int] = 0
    phi_names: ClassVar[tuple[str, ...]] = ()
    phi_scales: ClassVar[tuple[Scale, ...]] = ()
    phi_apart: ClassVar[bool] = True
    phi_range: ClassVar[tuple[Any, Any]] = (-np.inf, np.inf)
    phi_stops: ClassVar[bool] = False
    phi_ends: ClassVar[Mapping[str, tuple[str, str]]] = {}
    phi_centre: ClassVar[Any] = 0.0
    phi_in_units: ClassVar[bool] = False

    @property
    def scales(self) -> tuple[Scale, ...]:
        """The scale of each dispersion parameter."""
        return self.phi_scales or (LOG,) * self.n_phi

    def natural(self, phi: Any) -> Any:
        """Natural values (n_phi, ...) of phi (n_phi, ...), JAX's or NumPy's.

        Override it together with the next three where a value is a function of several
        phi, and set ``phi_apart``.
        """
        if not self.phi_scales:
            return exp(phi)
        values = [s.back(x) for s, x in zip(self.scales, phi, strict=True)]
        return functions(phi).stack(values)

    def from_natural(self, values: Any) -> Any:
        """phi (n_phi, ...) of natural values: the inverse of ``natural``."""
        if not self.phi_scales:
            return functions(values).log(values)
        phi = [s.to(value) for s, value in zip(self.scales, values, strict=True)]
        return functions(values).stack(phi)

    def natural_jacobian(self, phi: Any) -> np.ndarray:
        """(n_phi, n_phi) derivatives of the natural values in phi, on the host."""
        values = self.natural(np.asarray(phi, float))
        slopes = [float(s.slope(v)) for s, v in zip(self.scales, values, strict=True)]
        return np.diag(np.array(slopes))

    def log_natural_slope(self, phi: Any) -> Any:
        """log |det| of the Jacobian, for priors of natural values; JAX and pure."""
        return sum(s.log_slope(x) for s, x in zip(self.scales, phi, strict=True))

    def holding(self, r: int, phi: Any) -> tuple[Self, np.ndarray]:
        """Family and phi with the r-th natural value a function of phi_r alone.

        By ``scales[r]``: so it can be held while all else is free. The family itself
        where all values are.
        """
        return self, np.asarray(phi)

    def at_end(self, phi: np.ndarray) -> np.ndarray:
        """Which phi (n_phi, ...) are at an end where the likelihood may still rise."""
        return self.end_of(phi) != 0

    def end_of(self, phi: np.ndarray, close: float = END) -> np.ndarray:
        """-1 and 1 for phi (n_phi, ...) at such an end, the lower and the upper."""
        if not self.phi_stops:
            return np.zeros(np.shape(phi), int)
        across = (-1, *(1,) * (np.ndim(phi) - 1))
        ends = (np.broadcast_to(end, (self.n_phi,)) for end in self.phi_range)
        low, high = (np.reshape(end, across) for end in ends)
        return (phi >= high - close) * 1 - (phi <= low + close)

    def dispersion(self, phi: Any) -> dict[str, float]:
        """Natural values of the dispersion parameters by name."""
        values = self.natural(np.atleast_1d(np.asarray(phi, float)))
        return dict(zip(self.phi_names, map(float, values), strict=True))

    def phi_of(self, named: Mapping[str, Any]) -> np.ndarray:
        """(n_phi, ...) phi from natural values by name, in order."""
        return self.from_natural(np.array([*named.values()], float))

    def sigma(self, phi: Any) -> float:
        """What glmmTMB calls sigma, by the first natural value; 1 without any."""
        return next(iter(self.dispersion(phi).values())) if self.n_phi else 1.0
