"""The page that ``MixedLMResults.summary`` shows, laid out as statsmodels' is."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
import pandas as pd
from scipy import stats

from jaxglmm.compat.statsmodels.mixedlm.fitted import FitNumbers

STYLE = 'class="simpletable"'
TITLE = "Mixed Linear Model Regression Results"


class MixedLMSummary:
    """Two tables with a title: ``tables``, ``as_text``, ``as_html``, ``as_latex``."""

    def __init__(self, title: str, info: list[tuple[str, str]], table: pd.DataFrame):
        self.title, self.info = title, info
        half = (len(info) + 1) // 2
        left, right = info[:half], info[half:] + [("", "")] * (2 * half - len(info))
        head = [[*a, *b] for a, b in zip(left, right, strict=True)]
        self.tables = [pd.DataFrame(head), table]
        self.extra_txt: list[str] = []

    def add_text(self, string: str) -> None:
        """A line below the tables."""
        self.extra_txt.append(str(string))

    def add_title(self, title: str | None = None, results: object = None) -> None:
        """Another title."""
        self.title = TITLE if title is None else title

    def add_df(
        self, df: pd.DataFrame, index=True, header=True, float_format="%.4f", align="r"
    ) -> None:
        """A further table."""
        frame = df.map(lambda v: float_format % v if isinstance(v, float) else str(v))
        frame.index = [str(i) if index else "" for i in frame.index]
        if not header:
            frame.columns = [""] * frame.shape[1]
        self.tables.append(frame)

    def add_dict(self, d: dict, ncols: int = 2, align="l", float_format="%.4f") -> None:
        """A further table, of names and values."""
        cells = [
            (k, float_format % v if isinstance(v, float) else v) for k, v in d.items()
        ]
        cells += [("", "")] * (-len(cells) % ncols)
        rows = [cells[i : i + ncols] for i in range(0, len(cells), ncols)]
        self.add_df(
            pd.DataFrame([[x for pair in row for x in pair] for row in rows]),
            index=False,
            header=False,
        )

    def as_text(self) -> str:
        """The page as text."""
        head = [list(row) for row in self.tables[0].itertuples(index=False)]
        widths = [max(len(str(r[c])) for r in head) for c in range(4)]
        lines = right_aligned(self.tables[1])
        width = max(sum(widths) + 3, len(lines[0]))
        lines = right_aligned(self.tables[1], width)
        gap, rest = divmod(width - sum(widths), 3)
        widths[0] += rest
        rows = [
            (" " * gap).join(str(x).ljust(w) for x, w in zip(r, widths, strict=True))
            for r in head
        ]
        double, single = "=" * width, "-" * width
        title = self.title.center(width).rstrip()
        page = [title, double, *rows, single, lines[0], single, *lines[1:]]
        for more in self.tables[2:]:
            page += [single, *right_aligned(more, width)]
        return "\n".join([*page, double, *self.extra_txt])

    def as_html(self) -> str:
        """The page as HTML tables."""
        head = self.tables[0].to_html(header=False, index=False, border=0)
        tables = [head, *(t.to_html(border=0) for t in self.tables[1:])]
        tables[0] = tables[0].replace(
            ">\n", f">\n<caption>{escape(self.title)}</caption>\n", 1
        )
        text = "<br/>\n".join(map(escape, self.extra_txt))
        page = "\n".join(t.replace('class="dataframe"', STYLE, 1) for t in tables)
        return f"{page}\n{text}" if text else page

    def as_latex(self) -> str:
        """The page as LaTeX tables."""

        def row(cells: Sequence[object]) -> str:
            text = " & ".join(str(c) for c in cells)
            for sign in ("%", "_", "#"):
                text = text.replace(sign, f"\\{sign}")
            return text.replace("|z|", "$|z|$").replace("|t|", "$|t|$") + r" \\"

        head = [row(r) for r in self.tables[0].itertuples(index=False)]
        body = self.tables[1]
        rows = [row([i, *r]) for i, r in zip(body.index, body.to_numpy(), strict=True)]
        columns = "l" + "r" * body.shape[1]
        return "\n".join(
            [
                r"\begin{table}",
                rf"\caption{{{self.title}}}",
                r"\begin{tabular}{llll}",
                r"\hline",
                *head,
                r"\hline",
                r"\end{tabular}",
                rf"\begin{{tabular}}{{{columns}}}",
                r"\hline",
                row(["", *body.columns]),
                r"\hline",
                *rows,
                r"\hline",
                r"\end{tabular}",
                r"\end{table}",
            ]
        )

    def __str__(self) -> str:
        return self.as_text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.as_html()

    def _repr_latex_(self) -> str:
        return self.as_latex()


def right_aligned(frame: pd.DataFrame, least: int = 0) -> list[str]:
    """Index to the left, columns to the right, headings centred; ``least`` wide."""
    index = [str(i) for i in frame.index]
    columns = []
    for j, name in enumerate(frame.columns):
        cells = [str(v) for v in frame.iloc[:, j]]
        width = max(len(str(name)), *(len(c) for c in cells))
        columns.append([str(name).center(width), *(c.rjust(width) for c in cells)])
    first = max(len(i) for i in index)
    spare = max(least - first - sum(len(c[0]) for c in columns), len(columns))
    gap, rest = divmod(spare, len(columns))
    out = []
    for r in range(len(index) + 1):
        head = "" if r == 0 else index[r - 1]
        cells = [head.ljust(first + rest), *(c[r] for c in columns)]
        out.append((" " * gap).join(cells))
    return out


def summarise(
    results: FitNumbers,
    yname: str | None,
    xname_fe: Sequence[str] | None,
    xname_re: Sequence[str] | None,
    title: str | None,
    alpha: float,
) -> MixedLMSummary:
    """See ``MixedLMResults.summary``."""
    facts = results.facts
    names = list(results._names)
    k_fe = results.k_fe
    for what, given, here in (
        ("xname_fe", xname_fe, slice(0, k_fe)),
        ("xname_re", xname_re, slice(k_fe, None)),
    ):
        if given is not None:
            if len(given) != len(names[here]):
                raise ValueError(
                    f"{what} should be a list of length {len(names[here]):d}"
                )
            names[here] = list(given)
    info = [
        ("Model:", "MixedLM"),
        ("No. Observations:", str(results.nobs)),
        ("No. Groups:", str(results.model.n_groups)),
        ("Min. group size:", f"{facts['smallest']:.0f}"),
        ("Max. group size:", f"{facts['largest']:.0f}"),
        ("Mean group size:", f"{facts['mean']:.1f}"),
        ("Dependent Variable:", results.model.endog_names if yname is None else yname),
        ("Method:", results.method),
        ("Scale:", f"{results.scale:.4f}"),
        ("Log-Likelihood:", f"{results.llf:.4f}"),
        ("Converged:", "Yes" if results.converged else "No"),
    ]
    estimate = np.concatenate(
        [results.params_object.fe_params, results.natural_variances]
    )
    se = np.concatenate([results.bse_fe_array, results.bse_re_array])
    z = estimate / np.where(se > 0, se, np.nan)
    p = 2 * stats.norm.sf(np.abs(z))
    q = stats.norm.ppf(1 - alpha / 2)
    columns = [estimate, se, z, p, estimate - q * se, estimate + q * se]
    for column in columns[2:]:
        column[k_fe:] = np.nan
    heads = ["Coef.", "Std.Err.", "z", "P>|z|", f"[{alpha / 2}", f"{1 - alpha / 2}]"]
    table = pd.DataFrame(
        {
            head: [f"{v:.3f}" if np.isfinite(v) else "" for v in column]
            for head, column in zip(heads, columns, strict=True)
        },
        index=names,
    )
    return MixedLMSummary(TITLE if title is None else title, info, table)
