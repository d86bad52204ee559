"""What a residual structure asks of a design beyond being well formed."""

from __future__ import annotations

import numpy as np

from jaxglmm._errors import ModelError
from jaxglmm.fitting.block_rows import correlation_of, n_columns, n_scales, scales_of
from jaxglmm.fitting.blocks import BlockEngine
from jaxglmm.fitting.residual_coordinates import kinds
from jaxglmm.formula.design import Design, RandomTerm, ResidualTerm
from jaxglmm.runtime.host import on_host

SINGULAR_ROWS = 1e-10  # least eigenvalue of a correlation matrix that counts as zero


def check(design: Design) -> None:
    """Refuse what the residual structure cannot tell apart.

    Raises:
        ModelError: naming the term and what to change.
    """
    term = design.residual
    assert term is not None
    n = design.n_counted
    if term.is_silent and not design.terms:
        raise ModelError(
            "dispersion='~ 0' leaves no residual, and the model has no random effects "
            "either: nothing says how rows vary. Leave dispersion out"
        )
    held = sum(name in design.fixed for name in kinds(design))
    p = design.p - sum(name in design.fixed for name in design.x_names)
    if p >= n and held < len(kinds(design)):
        raise ModelError(
            f"{p} fixed effects and {n} rows leave nothing to estimate the "
            "residual covariance from; drop terms or add data"
        )
    apart = term.part is None  # the columns of a formula were made independent
    B = scales_of(design)[design.counted] if apart else np.zeros((0, 0))
    size = np.sqrt(np.einsum("ij,ij->j", B, B))
    gram = B.T @ B / np.outer(size, size)
    if apart and (not (size > 0).all() or np.linalg.eigvalsh(gram)[:1].min() < 1e-10):
        raise ModelError(
            f"residual={term.text!r}: the standard deviations of "
            f"{', '.join(term.scale_names)} cannot be told from those of "
            f"{'the visits' if n_scales(design) > 1 else 'one another'}; leave one out"
        )
    each = n_columns(design)
    own = correlation_of(design)
    if own is not None:
        each += own.k
        if term.structure in ("cs", "csh") and np.bincount(term.codes).max() < 2:
            raise ModelError(
                f"residual={term.text!r}: every level of {term.subject!r} has one row; "
                "there is no correlation to estimate"
            )
    total = each * len(term.group_levels) - held
    if total and total + p >= n:
        raise ModelError(
            f"{'residual' if term.part is None else 'dispersion'}={term.text!r} has "
            f"{total} parameters, and with {p} fixed effects these are as many "
            f"as the {n} rows. Take "
            + (
                "a structure with fewer, such as ar1 or cs"
                if term.part is None
                else "a formula with fewer"
            )
        )
    for random in design.terms:
        _refuse_twice(term, random)


def check_silent(engine: BlockEngine) -> None:
    """Refuse a model without a residual whose random effects leave rows without one.

    Raises:
        ModelError: some rows have the same random effects, so that nothing says how
            they differ.
    """
    problem, design = engine.problem, engine.design
    if problem.noise:
        return  # as it is wherever rows are not by themselves
    for a, stack in zip(engine.arrangements, problem.stacks, strict=True):
        with on_host():
            V = np.asarray(problem.tables(problem.start, stack)[0])[stack.template]
        pad = np.eye(V.shape[1]) * (1 - stack.mask)[:, None]
        both = stack.mask[:, :, None] * stack.mask[:, None, :]
        V = V * both + pad
        sd = np.sqrt(np.maximum(np.diagonal(V, axis1=1, axis2=2), 1e-300))
        least = np.linalg.eigvalsh(V / sd[:, :, None] / sd[:, None, :])[:, 0]
        if least.min() > SINGULAR_ROWS:
            continue
        block = np.flatnonzero(a.pattern == int(np.argmin(least)))[0]
        rows = engine.keep[a.at[a.block == block]]
        if design.rows is not None:
            rows = design.rows[rows]
        few = ", ".join(str(int(r)) for r in sorted(rows)[:4])
        raise ModelError(
            "dispersion='~ 0' leaves no residual, and the random effects do not say "
            f"how all rows differ: the covariance of rows {few}"
            f"{', ...' if len(rows) > 4 else ''} (counted from 0) is singular, since "
            f"{len(rows)} rows share fewer random effects. Add an effect that every "
            "row has of its own, such as us(factor(time) + 0 | g) or (1 | row), or "
            "leave dispersion out"
        )


def _refuse_twice(term: ResidualTerm, random: RandomTerm) -> None:
    """Random effects that the residual covariance holds already."""
    if term.structure not in ("us", "cs", "csh"):
        return
    pairs = np.unique(np.stack([random.codes, term.codes]), axis=1).shape[1]
    same = len(random.levels) == len(term.levels) == pairs
    if same:
        holds = "any covariance" if term.structure == "us" else "a common correlation"
        if term.structure == "us" or random.names == ("(Intercept)",):
            raise ModelError(
                f"residual={term.text!r} allows {holds} within {term.subject!r}, and "
                f"({' + '.join(random.names)} | {random.factor}) adds nothing to it: "
                "the two cannot be told apart. Leave one out"
            )
