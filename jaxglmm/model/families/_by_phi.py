"""Rows as functions of the dispersion parameters, beside eta."""

from __future__ import annotations

from typing import NamedTuple

from jaxglmm._typing import Array, Float

Rows = Float[Array, "..."]


class ByPhi(NamedTuple):
    """Derivatives of rows in the dispersion parameters, one array a parameter.

    plain: (l, s, w, w1); dl, ds, dw: of these; info: (r, r) minus the second
    derivatives of l, of a family that ``has_joint_information`` as far as they are
    positive semidefinite together with w and ds.
    """

    plain: tuple[Rows, Rows, Rows, Rows]
    dl: tuple[Rows, ...]
    ds: tuple[Rows, ...]
    dw: tuple[Rows, ...]
    info: tuple[tuple[Rows, ...], ...]
