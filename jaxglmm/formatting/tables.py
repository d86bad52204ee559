"""Tables and paragraphs, written once and shown as text, as HTML or as LaTeX.

A summary is a list of blocks; ``as_text`` is what a terminal shows, ``as_html`` what a
notebook shows, ``as_latex`` what a paper takes. Cells are strings already, so all show
the same digits.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from jaxglmm.formatting import numbers


@dataclass(frozen=True)
class Paragraph:
    """Lines of text."""

    lines: tuple[str, ...]


@dataclass(frozen=True)
class TextTable:
    """A titled table of strings.

    align: "<" or ">" a column; footer: lines below the table
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    align: str
    footer: tuple[str, ...] = ()


Block = Paragraph | TextTable


def as_text(blocks: Sequence[Block]) -> str:
    """Blocks with an empty line between them."""
    return "\n\n".join(_text(block) for block in blocks)


def _text(block: Block) -> str:
    if isinstance(block, Paragraph):
        return "\n".join(block.lines)
    cells = [block.header, *block.rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        " ".join(
            f"{c:{a}{w}}" for c, a, w in zip(row, block.align, widths, strict=True)
        ).rstrip()
        for row in cells
    ]
    title = [block.title] if block.title else []
    return "\n".join([*title, *lines, *block.footer])


STYLE = (
    "<style scoped>.jaxglmm th{text-align:right;font-weight:600}"
    ".jaxglmm td,.jaxglmm th{padding:.15em .6em}"
    ".jaxglmm caption{caption-side:top;text-align:left;font-weight:600}"
    ".jaxglmm p{margin:.4em 0;white-space:pre-line}</style>"
)


def _words(block: TextTable) -> list[str]:
    """The footer without the rule that text alone needs above it."""
    return [line for line in block.footer if line.strip("-")]


def as_html(blocks: Sequence[Block]) -> str:
    """The same blocks for a notebook."""
    body = "".join(_html(block) for block in blocks)
    return f"<div class='jaxglmm'>{STYLE}{body}</div>"


def _html(block: Block) -> str:
    if isinstance(block, Paragraph):
        return f"<p>{html.escape(chr(10).join(block.lines))}</p>"
    head = _cells("th", block.header, block.align)
    rows = "".join(f"<tr>{_cells('td', row, block.align)}</tr>" for row in block.rows)
    caption = f"<caption>{html.escape(block.title.rstrip(':'))}</caption>"
    foot = "".join(f"<p>{html.escape(line)}</p>" for line in _words(block))
    return (
        f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        f"{foot}"
    )


def _cells(tag: str, row: Sequence[str], align: str) -> str:
    return "".join(_cell(tag, c, a) for c, a in zip(row, align, strict=True))


def _cell(tag: str, text: str, align: str) -> str:
    side = "left" if align == "<" else "right"
    indent, text = _apart(text)
    shown = "&nbsp;" * indent + html.escape(text)
    return f"<{tag} style='text-align:{side}'>{shown}</{tag}>"


def _apart(cell: str) -> tuple[int, str]:
    """Spaces at its start, which only a terminal shows, and the rest of a cell."""
    text = cell.lstrip(" ")
    return len(cell) - len(text), text


_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": r"\textbar{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    **{c: "\\" + c for c in "&%$#_{}"},
}


def as_latex(blocks: Sequence[Block]) -> str:
    """The tables for a paper, each a ``tabular`` with booktabs' rules.

    Paragraphs stand as comments; footers too, which say what stars mean.
    """
    return "\n\n".join(_latex(block) for block in blocks) + "\n"


def _latex(block: Block) -> str:
    if isinstance(block, Paragraph):
        return "\n".join(f"% {line}" for line in block.lines)
    align = "".join("l" if a == "<" else "r" for a in block.align)
    head, *rows = [
        " & ".join(map(_tex, row)) + r" \\" for row in (block.header, *block.rows)
    ]
    lines = [rf"\begin{{tabular}}{{{align}}}", r"\toprule", head, r"\midrule", *rows]
    title = [f"% {block.title}"] if block.title else []
    foot = [f"% {line}" for line in _words(block)]
    return "\n".join([*title, *lines, r"\bottomrule", r"\end{tabular}", *foot])


def as_markdown(block: TextTable) -> str:
    """The table as GitHub, notebooks and Pandoc read it; footers below."""
    rule = ["---:" if a == ">" else ":---" for a in block.align]
    lines = [block.header, tuple(rule), *block.rows]
    table = "\n".join(f"| {' | '.join(map(_md, row))} |" for row in lines)
    title = [f"**{_md(block.title)}**", ""] if block.title else []
    foot = [part for line in _words(block) for part in ("", _md(line))]
    return "\n".join([*title, table, *foot]) + "\n"


def _md(cell: str) -> str:
    """A cell whose signs mean themselves; indented ones keep their place."""
    indent, text = _apart(cell)
    text = "".join("\\" + c if c in r"|*_`~<" else c for c in text)
    return "&nbsp;" * indent + text


def _tex(cell: str) -> str:
    """A cell with its special characters, and the minus of a number, as LaTeX's."""
    if cell[:1] == "-" and cell[1:2].isdigit():
        return f"$-${cell[1:]}"
    indent, text = _apart(cell)
    return r"\quad " * bool(indent) + "".join(_SPECIAL.get(c, c) for c in text)


def random_effects(
    varcorr, sigma: float | None, footer: tuple[str, ...] = ()
) -> TextTable:
    """Groups, Name, Variance, Std.Dev., Corr: one row a variance, the residual last."""
    groups, names, sds, corrs = [], [], [], []
    for label, record in varcorr.items():
        if record.parameters:
            compact = _of_structure(record)
            groups += [label, *[""] * (len(compact) - 1)]
            names += [name for name, _, _ in compact]
            sds += [sd for _, sd, _ in compact]
            corrs += [cells for _, _, cells in compact]
            continue
        for k, name in enumerate(record.sd.index):
            groups.append(label if k == 0 else "")
            names.append(str(name))
            sds.append(float(record.sd.iloc[k]))
            row = record.corr.to_numpy()[k, :k] if record.correlated else []
            corrs.append(tuple(numbers.fixed(float(c), 2) for c in row))
    if sigma is not None:
        groups.append("Residual")
        names.append("")
        sds.append(sigma)
        corrs.append(())
    width = max(map(len, corrs), default=0)
    variances = numbers.column([sd**2 for sd in sds])
    rows = tuple(
        (g, n, v, s, *c, *[""] * (width - len(c)))
        for g, n, v, s, c in zip(
            groups, names, variances, numbers.column(sds), corrs, strict=True
        )
    )
    header = (
        "Groups",
        "Name",
        "Variance",
        "Std.Dev.",
        *["Corr", *[""] * width][:width],
    )
    return TextTable("Random effects:", header, rows, "<<>>" + ">" * width, footer)


def _of_structure(record) -> list[tuple[str, float, tuple[str, ...]]]:
    """Rows (name, sd, cells beside it) of a structure: one sd, or one a column.

    Its correlation, or range, stands once, and many of them end in dots.
    """
    word, columns = record.structure.partition("(")[0], list(record.sd.index)
    beside = [
        numbers.fixed(value, 2) if kind.startswith("cor") else numbers.general(value)
        for kind, value in record.parameters.items()
        if not kind.startswith("sd")
    ]
    if len(beside) > 3:
        beside = [*beside[:3], "..."]
    cells = (*beside, f"({word})") if beside else ()
    if "sd" in record.parameters:
        name = f"{columns[0]} ... {columns[-1]}" if len(columns) > 1 else columns[0]
        return [(name, record.parameters["sd"], cells or (f"({word})",))]
    sds = record.sd.to_numpy()
    rows = [(str(c), float(s), ()) for c, s in zip(columns, sds, strict=True)]
    return [(rows[0][0], rows[0][1], cells), *rows[1:]]
