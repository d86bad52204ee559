"""Responses that know their names: AnnData's columns, voxels of images.

An annotated matrix of genomics is read by what it has, ``obs``, ``var``, ``X`` and
``layers``; the package anndata is not needed (Virshup et al. 2024, Journal of Open
Source Software 9, 4371).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import ArgumentError, DataError
from jaxglmm.many import images

PARTS = ("obs", "var", "X", "layers", "var_names")
LOG_SIZE = "log_size"


@dataclass(frozen=True)
class AnnotatedResponses:
    """The arguments of ``fit_many`` that an annotated matrix gives.

    data: the table of the rows; responses: (n, D); offset: as given, or (n,); labels:
    (D,) names of the columns, None where they are not known.
    """

    data: Any
    responses: Any
    offset: Any
    labels: np.ndarray | None

    def named(self, labels: np.ndarray | None) -> np.ndarray | None:
        """Names of the data sets: the matrix's own where it has some."""
        return labels if self.labels is None else self.labels


def is_annotated(data: Any) -> bool:
    """Whether these are an AnnData's parts."""
    return not isinstance(data, dict) and all(hasattr(data, name) for name in PARTS)


def annotated(
    data: Any, layer: Any, responses: Any, by: Any, offset: Any, mask: Any = None
) -> AnnotatedResponses:
    """The responses of an annotated matrix or of images; others come back as they are.

    Args:
        data: AnnData, or anything else.
        layer: name of one of its layers; None for its X.
        responses: as for ``fit_many``.
        by: as for ``fit_many``; with either of them an AnnData is none.
        offset: "log_size" for the logarithm of each row's total, unless ``obs`` has a
            column of that name; else as for ``fit_many``.
        mask: of images, as for ``fit_many``.

    Raises:
        ArgumentError: no such layer, or no AnnData; a mask without images.
        DataError: no matrix, or rows whose total has no logarithm; images in different
            spaces.
    """
    if responses is not None and layer is None and images.are_images(responses):
        values, labels = images.read(responses, mask)
        return AnnotatedResponses(data, values, offset, labels)
    if mask is not None:
        raise ArgumentError(
            "mask= goes with responses= that are images: nibabel's, or paths that end "
            "in .nii or .nii.gz"
        )
    if responses is not None or by is not None or not is_annotated(data):
        if layer is not None:
            raise ArgumentError(
                f"layer={_arguments.shown(layer)} names a layer of an AnnData with its "
                "responses; here data is a table, or responses= or by= is given"
            )
        return AnnotatedResponses(data, responses, offset, None)
    layers = list(data.layers.keys())
    if layer is None:
        values, name = data.X, "X"
    elif _arguments.is_among(layer, layers):
        values, name = data.layers[layer], f"layers[{layer!r}]"
    else:
        raise ArgumentError(
            f"layer={_arguments.shown(layer)} is none of the layers: "
            f"{', '.join(map(repr, layers)) or 'there are none; leave it out for X'}"
        )
    if values is None:
        raise DataError(
            f"{name} of the data is empty; its layers are "
            f"{', '.join(map(repr, layers)) or 'none'}: say which by layer="
        )
    if hasattr(values, "to_memory"):  # a sparse matrix on disk
        values = values.to_memory()
    if _arguments.is_among(offset, (LOG_SIZE,)) and LOG_SIZE not in data.obs:
        offset = _log_size(values, name)
    return AnnotatedResponses(data.obs, values, offset, np.asarray(data.var_names))


def _log_size(values: Any, name: str) -> np.ndarray:
    """(n,) logarithms of the totals of rows."""
    if hasattr(values, "tocsr") or isinstance(values, np.ndarray):
        total = np.asarray(values.sum(axis=1), float).ravel()
    else:  # on disk: a block at a time
        n, size = values.shape[0], max(1, 10_000_000 // max(values.shape[1], 1))
        parts = [
            np.asarray(values[a : a + size]).sum(axis=1) for a in range(0, n, size)
        ]
        total = np.concatenate(parts).astype(float)
    bad = np.flatnonzero(~(np.isfinite(total) & (total > 0)))
    if len(bad):
        raise DataError(
            f"offset='log_size': {len(bad)} rows of {name} have a total without a "
            f"logarithm, the first row {bad[0]} with {total[bad[0]]:g}. Leave such "
            "rows out, or give another offset="
        )
    return np.log(total)
