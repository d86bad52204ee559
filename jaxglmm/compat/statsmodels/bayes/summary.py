"""The summary of a Bayesian mixed GLM: statsmodels' table and a block of facts."""

from __future__ import annotations

from textwrap import wrap

import numpy as np
import pandas as pd

from jaxglmm.compat.statsmodels.bayes.state import PosteriorState
from jaxglmm.compat.statsmodels.mixedlm.summary import right_aligned
from jaxglmm.formatting.tables import Block, Paragraph, TextTable, as_html, as_text

FOOTNOTES = (
    "Parameter types are mean structure (M) and variance structure (V)",
    "Variance parameters are modeled as log standard deviations",
)


class BayesSummary:
    """title: str; tables: the frame of parameters; facts: a frame; it prints itself."""

    def __init__(
        self,
        title: str,
        tables: list[pd.DataFrame],
        notes: tuple[str, ...],
        facts: pd.DataFrame,
    ):
        self.title, self.tables, self.notes, self.facts = title, tables, notes, facts

    @classmethod
    def of(cls, results: PosteriorState, alpha: float | None) -> BayesSummary:
        """The summary of some results."""
        title = f"{results.model.family.name.capitalize()} Mixed GLM Results"
        notes = (*FOOTNOTES, *results.notes)
        return cls(title, [_parameters(results, alpha)], notes, _facts(results))

    def as_text(self) -> str:
        """Plain text, laid out as statsmodels' is; what is known of the fit last."""
        shown = self.tables[0].map(lambda x: x if isinstance(x, str) else f"{x:.4f}")
        head, *rows = right_aligned(shown, len(self.title))
        double, single = "=" * len(head), "-" * len(head)
        notes = [line for note in self.notes for line in wrap(note, len(head))]
        facts = as_text([_table(self.facts)])
        page = [self.title.center(len(head)).rstrip(), double, head, single, *rows]
        return "\n".join([*page, double, *notes, "", facts])

    def as_html(self) -> str:
        """For a notebook."""
        return as_html([Paragraph((self.title,)), *self._blocks()])

    def as_latex(self) -> str:
        """The tables in LaTeX."""
        return "\n\n".join(_latex(t) for t in (*self.tables, self.facts))

    def _blocks(self) -> list[Block]:
        blocks: list[Block] = [_table(t) for t in (*self.tables, self.facts)]
        return [*blocks, Paragraph(self.notes)]

    def __str__(self) -> str:
        return self.as_text()

    def __repr__(self) -> str:
        return f"{type(self)}\n{self}"

    def _repr_html_(self) -> str:
        return self.as_html()


def _parameters(results: PosteriorState, alpha: float | None) -> pd.DataFrame:
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


def _facts(results: PosteriorState) -> pd.DataFrame:
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


def _table(frame: pd.DataFrame) -> TextTable:
    cells = tuple(
        (str(name), *(x if isinstance(x, str) else f"{x:.4f}" for x in row))
        for name, row in zip(frame.index, frame.itertuples(index=False), strict=True)
    )
    header = ("", *map(str, frame.columns))
    align = "<" + ">" * len(frame.columns) if len(frame.columns) > 1 else "<<"
    return TextTable("", header, cells, align)


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
