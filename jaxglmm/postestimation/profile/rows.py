"""Rows of generalised models with one grouping factor, as engines lay them out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxglmm.formula.design import Design
from jaxglmm.integrate.base import AbstractMarginal
from jaxglmm.many.ragged_generalised import LongRows
from jaxglmm.many.response_rows import ResponseRows
from jaxglmm.many.responses import values_of
from jaxglmm.model.families import AbstractFamily
from jaxglmm.structure.factors import Factor


@dataclass(frozen=True)
class ModelRows:
    """D models by rows, in internal coordinates.

    shared, own: arrays of ``rows_lanes.LaneRows`` by name, and ``n_levels``, last axis
    1 or D; T: (D, q, q) or (1, q, q), internal effects = T times the user's;
    R_inverse: (D, p, p) or (1, p, p), the user's beta = R^-1 beta~; J: (D,) levels;
    padded: levels with padding; chunk: lanes at a time.
    """

    design: Design
    family: AbstractFamily
    marginal: AbstractMarginal
    factor: Factor
    shared: dict[str, Any]
    own: dict[str, np.ndarray]
    T: np.ndarray
    R_inverse: np.ndarray
    J: np.ndarray
    padded: int
    chunk: int


def of_responses(data: ResponseRows, chunk: int, which: np.ndarray) -> ModelRows:
    """Responses of one design that can be fitted; missing ones have weight 0."""
    source, place = data.source, data.layout.place
    Y = data.responses.take(which)
    given = {
        name: values_of(values, which, Y.shape)
        for name in ("weights", "trials", "offset")
        if (values := getattr(source, name)) is not None
        and not (name == "offset" and source.design.parts)  # the design's, of each
    }
    lost = np.isnan(Y)
    for values in given.values():
        lost = lost | np.isnan(values)
    used = ~lost & (given.get("weights", np.ones(Y.shape)) > 0)
    padding = data.family.padding
    own = {"y": place(np.where(used, Y, padding), padding)}
    if data.own_weights or data.shared["weights"] is None:
        weights = given.get("weights", np.ones(Y.shape))
        own["weights"] = place(np.where(used, weights, 0.0))
    if data.shared["trials"] is None:
        own["trials"] = place(np.where(used, given["trials"], 1.0), 1.0)
    if data.shared["offset"] is None and "offset" in given:
        own["offset"] = place(np.where(lost, 0.0, given["offset"]))
    common = {
        k: v
        for k, v in data.shared.items()
        if v is not None and k not in own and k != "back"
    }
    return ModelRows(
        data.design,
        data.family,
        source.model,
        data.factor,
        common,
        own,
        data.factor.T[None],
        data.R_inverse[None],
        np.full(len(which), float(data.factor.n_levels)),
        data.layout.J,
        chunk,
    )


def of_own_designs(data: LongRows, chunk: int, which: np.ndarray) -> ModelRows:
    """Data sets with designs of their own."""
    found = data.rows(which)
    own = {k: v for k, v in found.there.items() if k != "back"}
    return ModelRows(
        data.design,
        data.family,
        data.source.model,
        data.factor,
        data.common,
        own,
        np.linalg.solve(found.T_inverse, np.eye(data.factor.q)),
        found.back,
        found.there["n_levels"],
        data.J,
        chunk,
    )
