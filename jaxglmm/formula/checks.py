"""What a linear model asks of a design beyond being well formed."""

from __future__ import annotations

from jaxglmm._errors import ModelError
from jaxglmm.formula.design import Design


def check_linear(design: Design) -> None:
    """Refuse designs whose variances a linear model cannot tell apart.

    With one row a level the random intercept and the residual are the same thing; with
    as many random effects as rows there is nothing left to measure the residual by.

    Raises:
        ModelError: naming the term and the numbers.
    """
    n = design.n
    if design.p >= n:
        raise ModelError(
            f"{design.p} fixed effects and {n} rows leave nothing to estimate the "
            "residual variance from; drop terms or add data"
        )
    for term in design.terms:
        J, q = term.n_levels, len(term.names)
        if n <= J:
            raise ModelError(
                f"grouping factor {term.factor!r} has {J} levels for {n} rows: the "
                "number of levels must be smaller than the number of observations, or "
                "its variance cannot be told from the residual one"
            )
        if J * q >= n:
            raise ModelError(
                f"term ({' + '.join(term.names)} | {term.factor}) has {J} x {q} = "
                f"{J * q} random effects for {n} rows: the number of random effects "
                "must be smaller than the number of observations, or the variances are "
                "not identifiable. Drop a slope, or gather more rows per level"
            )
