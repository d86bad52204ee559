"""Rows of generalised models with one grouping factor, as engines lay them out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxglmm.formula.design import Design
from jaxglmm.integrate.base import AbstractMarginal
from jaxglmm.many.generalised import SharedRows
from jaxglmm.many.linear import _columns
from jaxglmm.many.ragged_generalised import RaggedRows
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


def of_responses(engine: SharedRows, which: np.ndarray) -> ModelRows:
    """Responses of one design that can be fitted; missing ones have weight 0."""
    source, place = engine.source, engine.layout.place
    Y = engine.responses.take(which)
    given = {
        name: _columns(values, which, Y.shape)
        for name in ("weights", "trials", "offset")
        if (values := getattr(source, name)) is not None
        and not (name == "offset" and source.design.parts)  # the design's, of each
    }
    lost = np.isnan(Y)
    for values in given.values():
        lost = lost | np.isnan(values)
    used = ~lost & (given.get("weights", np.ones(Y.shape)) > 0)
    padding = engine.family.padding
    own = {"y": place(np.where(used, Y, padding), padding)}
    if engine.own_weights or engine.shared["weights"] is None:
        weights = given.get("weights", np.ones(Y.shape))
        own["weights"] = place(np.where(used, weights, 0.0))
    if engine.shared["trials"] is None:
        own["trials"] = place(np.where(used, given["trials"], 1.0), 1.0)
    if engine.shared["offset"] is None and "offset" in given:
        own["offset"] = place(np.where(lost, 0.0, given["offset"]))
    common = {
        k: v
        for k, v in engine.shared.items()
        if v is not None and k not in own and k != "back"
    }
    return ModelRows(
        engine.design,
        engine.family,
        source.model,
        engine.factor,
        common,
        own,
        engine.factor.T[None],
        engine.R_inverse[None],
        np.full(len(which), float(engine.factor.n_levels)),
        engine.layout.J,
        engine.chunk,
    )


def of_own_designs(engine: RaggedRows, which: np.ndarray) -> ModelRows:
    """Data sets with designs of their own."""
    found = engine.rows(which)
    own = {k: v for k, v in found.there.items() if k != "back"}
    return ModelRows(
        engine.design,
        engine.family,
        engine.source.model,
        engine.factor,
        engine.common,
        own,
        np.linalg.solve(found.T_inverse, np.eye(engine.factor.q)),
        found.back,
        found.there["n_levels"],
        engine.J,
        engine.chunk,
    )
