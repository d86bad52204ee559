"""What a fit of streamed data will take, said before it begins."""

from __future__ import annotations

from dataclasses import dataclass

from jaxglmm._brief import cut
from jaxglmm.formatting import numbers

MEGA = 1e6


@dataclass(frozen=True)
class PassPlan:
    """What is read how often, and what is held.

    rows: None where the source does not say; columns: those that are read; passes:
    over the rows at least; bytes_pass, seconds_pass: of one, from the first batch;
    memory: of sums and batches, without the interpreter's own.
    """

    formula: str
    source: str
    rows: int | None
    columns: tuple[str, ...]
    passes: int
    bytes_pass: float | None
    seconds_pass: float | None
    memory: float | None
    method: str = "Arrow batches"

    @property
    def seconds(self) -> float | None:
        """Of all passes."""
        return None if self.seconds_pass is None else self.passes * self.seconds_pass

    def __repr__(self) -> str:
        rows = "an unknown number of" if self.rows is None else f"{self.rows:,}"
        lines = [
            f"{cut(self.formula, 90)} by {self.passes} passes over {self.source}",
            f"  {rows} rows, {len(self.columns)} columns ({', '.join(self.columns)}), "
            f"{self.method}",
        ]
        about = []
        if self.bytes_pass is not None:
            about.append(f"{self.bytes_pass / MEGA:,.0f} MB a pass")
        if self.seconds is not None:
            about.append(f"about {numbers.general(self.seconds, 2)} s of reading")
        if self.memory is not None:
            about.append(f"{self.memory / MEGA:,.0f} MB of memory")
        if about:
            lines.append("  " + ", ".join(about))
        return "\n".join(lines)
