"""What a fit with large crossed factors took."""

from __future__ import annotations

from dataclasses import dataclass

from jaxglmm.formatting import numbers


@dataclass(frozen=True)
class LargePlan:
    """How a model with large crossed factors is fitted, and what that took.

    columns: of the Schur complement; probes: 0 where it is factored exactly; memory: of
    that matrix, in bytes; evaluations, seconds: of the search by probes and of the
    exact one.
    """

    columns: int
    entries: int
    probes: int
    memory: float
    evaluations: tuple[int, int]
    seconds: tuple[float, float]

    @property
    def method(self) -> str:
        """In words."""
        if self.probes:
            return f"conjugate gradients and {self.probes} fixed probes"
        return "dense Schur complement in place, exact"

    def __repr__(self) -> str:
        out = (
            f"crossed factors by {self.method}\n"
            f"  {self.columns:,} columns after the largest factor, {self.entries:,} "
            "pairs of levels that occur"
        )
        if not self.probes:
            out += f", a matrix of {self.memory / 1e9:.2g} GB"
        names = ("by probes", "exact")
        each = zip(self.evaluations, self.seconds, names, strict=True)
        done = [f"{n} {name} in {numbers.general(s, 2)} s" for n, s, name in each if n]
        return f"{out}\n  evaluations: {', '.join(done)}"
