"""Statistics of data against the same statistics of draws from a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from jaxglmm.formatting import numbers

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Test:
    """A statistic of the data, what the draws have on average, and a p-value.

    method: "simulation" (the share of draws that are as far out), "refits" (of draws
        that were fitted themselves) or "asymptotic"
    """

    statistic: float
    expected: float
    p_value: float
    method: str = "simulation"

    @property
    def ratio(self) -> float:
        """Statistic over what is expected."""
        return self.statistic / self.expected if self.expected else float("nan")

    def __repr__(self) -> str:
        p = numbers.p_value(self.p_value)
        p = p if p.startswith("<") else f"= {p}"
        return (
            f"observed {numbers.general(self.statistic)}, expected "
            f"{numbers.general(self.expected)}, p {p} [{self.method}]"
        )


def distances(scaled: np.ndarray) -> np.ndarray:
    """(d,) Kolmogorov and Smirnov's distance of each row (d, n) from uniform."""
    ordered = np.sort(scaled, axis=1)
    steps = np.arange(ordered.shape[1] + 1) / ordered.shape[1]
    above = (steps[1:] - ordered).max(axis=1)
    below = (ordered - steps[:-1]).max(axis=1)
    return np.maximum(above, below)


def uniform(scaled: np.ndarray) -> Test:
    """Kolmogorov and Smirnov's test of one sample, by its limiting distribution."""
    from scipy import stats

    found = stats.kstest(scaled, "uniform")
    expected = 0.8687 / np.sqrt(len(scaled))  # mean of Kolmogorov's distribution
    return Test(float(found.statistic), expected, float(found.pvalue), "asymptotic")


def upper(values: np.ndarray) -> Test:
    """The first of ``values`` against the others, which are as large with p."""
    own, others = values[0], values[1:]
    p = (1 + np.sum(others >= own)) / len(values)
    return Test(float(own), float(others.mean()), float(p))


def two_sided(values: np.ndarray) -> Test:
    """The first of ``values`` against the others, as far out on either side with p."""
    own, others = values[0], values[1:]
    tails = [np.sum(others >= own), np.sum(others <= own)]
    p = min(1.0, 2 * (1 + min(tails)) / len(values))
    return Test(float(own), float(others.mean()), float(p))


def tabulated(tests: dict[str, Test]) -> pd.DataFrame:
    """observed, expected, p_value, method: a row a test."""
    import pandas as pd

    return pd.DataFrame(
        [(t.statistic, t.expected, t.p_value, t.method) for t in tests.values()],
        index=list(tests),
        columns=["observed", "expected", "p_value", "method"],
    )
