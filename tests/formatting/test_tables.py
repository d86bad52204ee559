"""Tables as text, HTML and LaTeX have the same cells."""

import pandas as pd
import pytest
from doors import tables

import jaxglmm as jg

BLOCKS = [
    tables.Paragraph(("A model", "of 5 % & more")),
    tables.TextTable(
        "Effects:",
        ("", "Pr(>|z|)"),
        (("a_b$", "-1.5"), ("{x}\\~^", "<2e-16"), ("- d", "")),
        "<>",
        ("stars",),
    ),
]


def test_latex_has_the_special_characters():
    assert tables.as_latex(BLOCKS).splitlines() == [
        "% A model",
        "% of 5 % & more",
        "",
        "% Effects:",
        r"\begin{tabular}{lr}",
        r"\toprule",
        r" & Pr(\textgreater{}\textbar{}z\textbar{}) \\",
        r"\midrule",
        r"a\_b\$ & $-$1.5 \\",
        r"\{x\}\textbackslash{}\textasciitilde{}\textasciicircum{}"
        r" & \textless{}2e-16 \\",
        r"- d &  \\",
        r"\bottomrule",
        r"\end{tabular}",
        "% stars",
    ]


DATA = pd.DataFrame(
    {
        "y": [0, 0, 2, 0, 3, 1, 0, 0, 4, 2, 0, 1, 0, 5, 2, 0],
        "x": [0.0, 1.0] * 8,
        "o": [1, 2, 3, 2, 1, 3, 2, 2, 1, 3, 1, 2, 1, 3, 3, 1],
    }
)


@pytest.mark.parametrize(
    ("fit", "titles"),
    [
        (
            lambda: jg.glmm("y ~ x", DATA, family="poisson", zi="~ 1"),
            ("conditional model", "zero-inflation model"),
        ),
        (lambda: jg.clm("o ~ x", DATA), ("Threshold coefficients", "Fixed effects")),
    ],
)
def test_all_components_are_in_all_forms(fit, titles):
    summary = fit().summary()
    for shown in (summary, summary.html, summary.latex):
        assert [title for title in titles if title not in shown] == []
    terms = [str(name).rpartition("~")[2] for name in summary.coefficients.index]
    for term in terms:
        plain = term.replace("|", r"\textbar{}")
        assert f"\n{plain} & " in summary.latex
        assert f">{term}</td>" in summary.html


def test_the_rule_above_a_legend_is_of_text_alone():
    block = tables.TextTable(
        "Fixed:", ("", "p"), (("x", "0.01"),), "<>", ("---", "legend")
    )
    assert "---\nlegend" in tables.as_text([block])
    assert "---</p>" not in tables.as_html([block])
    assert "<p>legend</p>" in tables.as_html([block])
    assert "% ---" not in tables.as_latex([block])
    assert tables.as_markdown(block).rstrip().endswith("\n\nlegend")
    assert "\n---" not in tables.as_markdown(block)
