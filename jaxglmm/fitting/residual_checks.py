"""What a residual structure asks of a design beyond being well formed."""

from __future__ import annotations

import numpy as np

from jaxglmm._errors import ModelError
from jaxglmm.fitting.blocks import block_rows, correlation_of, n_scales
from jaxglmm.formula.design import Design, RandomTerm, ResidualTerm


def check(design: Design) -> None:
    """Refuse what the residual structure cannot tell apart.

    Raises:
        ModelError: naming the term and what to change.
    """
    term = design.residual
    assert term is not None
    n = design.n_counted
    if design.p >= n:
        raise ModelError(
            f"{design.p} fixed effects and {n} rows leave nothing to estimate the "
            "residual covariance from; drop terms or add data"
        )
    rows = block_rows(design).take(np.arange(design.n)[design.counted])
    B = rows.scales
    size = np.sqrt(np.einsum("ij,ij->j", B, B))
    gram = B.T @ B / np.outer(size, size)
    if not (size > 0).all() or np.linalg.eigvalsh(gram)[0] < 1e-10:
        raise ModelError(
            f"residual={term.text!r}: the standard deviations of "
            f"{', '.join(term.scale_names)} cannot be told from those of "
            f"{'the visits' if n_scales(design) > 1 else 'one another'}; leave one out"
        )
    each = B.shape[1]
    own = correlation_of(design)
    if own is not None:
        each += own.k
        if term.structure in ("cs", "csh") and np.bincount(term.codes).max() < 2:
            raise ModelError(
                f"residual={term.text!r}: every level of {term.subject!r} has one row; "
                "there is no correlation to estimate"
            )
    total = each * rows.n_groups
    if total + design.p >= n:
        raise ModelError(
            f"residual={term.text!r} has {total} parameters, and with {design.p} fixed "
            f"effects these are as many as the {n} rows. Take a structure with fewer, "
            "such as ar1 or cs"
        )
    for random in design.terms:
        _refuse_twice(term, random)


def _refuse_twice(term: ResidualTerm, random: RandomTerm) -> None:
    """Random effects that the residual covariance holds already."""
    pairs = np.unique(np.stack([random.codes, term.codes]), axis=1).shape[1]
    same = len(random.levels) == len(term.levels) == pairs
    if same and term.structure in ("us", "cs", "csh"):
        holds = "any covariance" if term.structure == "us" else "a common correlation"
        if term.structure == "us" or random.names == ("(Intercept)",):
            raise ModelError(
                f"residual={term.text!r} allows {holds} within {term.subject!r}, and "
                f"({' + '.join(random.names)} | {random.factor}) adds nothing to it: "
                "the two cannot be told apart. Leave one out"
            )
