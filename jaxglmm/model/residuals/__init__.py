"""Residual structures of linear models, one file each, and the table of them."""

from __future__ import annotations

from jaxglmm.model.residuals.base import AbstractResiduals as AbstractResiduals
from jaxglmm.model.residuals.independent import (
    IndependentResiduals as IndependentResiduals,
)

REGISTRY: dict[str, type[AbstractResiduals]] = {"independent": IndependentResiduals}
