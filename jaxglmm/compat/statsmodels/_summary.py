"""The summary of a Bayesian mixed GLM: statsmodels' table and a block of facts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from jaxglmm.results.layout import Block, Paragraph, Table, as_html, as_text

if TYPE_CHECKING:
    from jaxglmm.compat.statsmodels._results import BayesMixedGLMResults

FOOTNOTES = (
    "Parameter types are mean structure (M) and variance structure (V)",
    "Variance parameters are modeled as log standard deviations",
)


class Summary:
    """title: str; tables: frames (parameters, facts); it prints itself."""

    def __init__(self, title: str, tables: list[pd.DataFrame], notes: tuple[str, ...]):
        self.title, self.tables, self.notes = title, tables, notes

    @classmethod
    def of(cls, results: BayesMixedGLMResults, alpha: float | None) -> Summary:
        """The summary of some results."""
        title = f"{results.model.family.name.capitalize()} Mixed GLM Results"
        tables = [_parameters(results, alpha), _facts(results)]
        return cls(title, tables, (*FOOTNOTES, *results.notes))

    def as_text(self) -> str:
        """Plain text."""
        return f"{self.title}\n\n{as_text(self._blocks())}"

    def as_html(self) -> str:
        """For a notebook."""
        return as_html([Paragraph((self.title,)), *self._blocks()])

    def as_latex(self) -> str:
        """The tables in LaTeX."""
        return "\n\n".join(_latex(table) for table in self.tables)

    def _blocks(self) -> list[Block]:
        blocks: list[Block] = [_table(table) for table in self.tables]
        return [*blocks, Paragraph(self.notes)]

    def __str__(self) -> str:
        return self.as_text()

    def __repr__(self) -> str:
        return f"{type(self)}\n{self}"

    def _repr_html_(self) -> str:
        return self.as_html()


def _parameters(results: BayesMixedGLMResults, alpha: float | None) -> pd.DataFrame:
    m = results.model
    if alpha is None:
        half = 2 * results.vcp_sd
        bounds = np.exp(
            np.column_stack([results.vcp_mean - half, results.vcp_mean + half])
        )
    else:
        bounds = results.sd_interval(alpha)
    blank = [""] * m.k_fep

    def shown(values: np.ndarray) -> list[str]:
        return [*blank, *(f"{x:.3f}" for x in values)]

    return pd.DataFrame(
        {
            "Type": ["M"] * m.k_fep + ["V"] * m.k_vcp,
            "Post. Mean": np.concatenate([results.fe_mean, results.vcp_mean]),
            "Post. SD": np.concatenate([results.fe_sd, results.vcp_sd]),
            "SD": shown(np.exp(results.vcp_mean)),
            "SD (LB)": shown(bounds[:, 0]),
            "SD (UB)": shown(bounds[:, 1]),
        },
        index=m.fep_names + m.vcp_names,
    )


def _facts(results: BayesMixedGLMResults) -> pd.DataFrame:
    m = results.model
    groups = np.bincount(m.ident, minlength=m.k_vcp)
    rows = {
        "Method": results.method,
        "Observations": str(m.nobs),
        "Random effects": ", ".join(
            f"{name} {count}" for name, count in zip(m.vcp_names, groups, strict=True)
        ),
        "Status": results.facts.get("status", ""),
    }
    for label, key in (
        ("Evidence lower bound", "elbo"),
        ("Log marginal likelihood", "log_marginal"),
        ("Log posterior (joint)", "log_posterior"),
        ("Pareto k-hat", "khat"),
    ):
        if results.facts.get(key) is not None:
            rows[label] = f"{results.facts[key]:.4f}"
    return pd.DataFrame({"": rows})


def _table(frame: pd.DataFrame) -> Table:
    cells = tuple(
        (str(name), *(x if isinstance(x, str) else f"{x:.4f}" for x in row))
        for name, row in zip(frame.index, frame.itertuples(index=False), strict=True)
    )
    header = ("", *map(str, frame.columns))
    align = "<" + ">" * len(frame.columns) if len(frame.columns) > 1 else "<<"
    return Table("", header, cells, align)


def _latex(frame: pd.DataFrame) -> str:
    """A tabular, without the optional dependency that pandas' own wants."""
    table = _table(frame)
    columns = "l" + "r" * (len(table.header) - 1)
    lines = [" & ".join(map(_escaped, row)) + r" \\" for row in table.rows]
    head = " & ".join(map(_escaped, table.header)) + r" \\ \hline"
    body = "\n".join([head, *lines])
    return f"\\begin{{tabular}}{{{columns}}}\n{body}\n\\end{{tabular}}"


def _escaped(text: str) -> str:
    return "".join("\\" + c if c in "%&_#${}" else c for c in text)
