"""A fit as one HTML file: tables and pictures inside it, nothing to be fetched.

Pictures are SVG in the page; the page prints, and follows a dark or light screen.
"""

from __future__ import annotations

import html
import io
import platform
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from jaxglmm._errors import JaxGLMMError

MOST_ROWS = 200  # of a table of random effects
MOST_POINTS = 5000  # of a scatter plot, above which it becomes a bitmap

STYLE = """
:root{color-scheme:light}
body{font:15px/1.5 system-ui,sans-serif;color:#1b1f24;background:#fff;margin:0 auto;
max-width:60rem;padding:1.5rem}
h1{font-size:1.35rem;font-family:ui-monospace,monospace;overflow-wrap:anywhere}
h2{font-size:1.05rem;margin:2rem 0 .5rem;border-bottom:1px solid #d0d7de}
table{border-collapse:collapse;margin:.5rem 0;font-variant-numeric:tabular-nums}
th{text-align:right;font-weight:600;border-bottom:1px solid #8c959f}
td,th{padding:.2rem .7rem}td{text-align:right}
th:first-child,td:first-child,.text{text-align:left}
tbody tr:nth-child(even){background:#f6f8fa}
.note{background:#fff8c5;border-left:4px solid #d4a72c;padding:.5rem .8rem;
margin:.5rem 0}
.fact{color:#57606a}
figure{margin:1rem 0;text-align:center}figure svg,figure img{max-width:100%;height:auto}
figcaption{color:#57606a;font-size:.9rem}
.wide{overflow-x:auto}
@media print{body{max-width:none}h2{break-after:avoid}figure{break-inside:avoid}}
"""


def effects_picture(fit: Any) -> tuple[str, Any]:
    """Caption and axes of the random effects."""
    text = (
        "Predicted random effects with their 95% intervals, sorted; blue where the "
        "interval leaves out 0."
    )
    return text, fit.plot.ranef()


def residuals_picture(fit: Any) -> tuple[str, Any]:
    """Caption and axes of residuals, in a form that is level if the model holds.

    Residuals of linear models are so against the fixed part. Those of generalised
    models, and those of a model whose fixed part is one number, are compared with draws
    from the fit instead.
    """
    from jaxglmm.plots.residual import predictor

    linear = fit.family_name == "gaussian" and fit.link_name == "identity"
    if linear and predictor(fit)[0] == "fixed":
        what = "fitted values"
        if fit.design.terms:
            what = "the fixed part of the fitted values (random effects at zero)"
        text = f"Residuals against {what}; the smooth curve should be level."
        return text, fit.plot.residuals()
    text = (
        "Residuals on a scale from 0 to 1: the share of draws from the fit below each "
        "response. Left: uniform if the model holds, with the band in which 95% of "
        "samples stay. Right: against the rank of the prediction at random effects of "
        "zero, with quartiles; grey is where 95% of draws have theirs."
    )
    return text, fit.plot.simulated_residuals()


def quantiles_picture(fit: Any) -> tuple[str, Any]:
    """Caption and axes of residuals against normal quantiles."""
    text = (
        "Residuals against normal quantiles; 95% of normal samples of this size stay "
        "inside the band from end to end."
    )
    return text, fit.plot.qq()


def profile_picture(fit: Any) -> tuple[str, Any]:
    """Caption and axes of the profile likelihood."""
    text = (
        "Signed roots of the profile deviance: straight where Wald intervals are "
        "right. Boxes are 50%, 80% and 95% intervals."
    )
    return text, fit.plot.profile()


FIGURES: dict[str, Callable[[Any], tuple[str, Any]]] = {
    "Random effects": effects_picture,
    "Residuals": residuals_picture,
    "Quantiles": quantiles_picture,
}


def write(
    fit: Any,
    path: Path,
    title: str,
    source: str,
    level: float = 0.95,
    profile: bool = False,
    notes: list[str] | None = None,
) -> None:
    """Write the report of a fit.

    Args:
        fit: any ``Fit``.
        path: the file.
        title: heading, such as the formula.
        source: where the data came from.
        level: of the intervals in the tables.
        profile: also the profile likelihood, which takes many fits.
        notes: warnings given while fitting.
    """
    path.write_text(page(fit, title, source, level, profile, notes), encoding="utf-8")


def page(
    fit: Any,
    title: str,
    source: str,
    level: float = 0.95,
    profile: bool = False,
    notes: list[str] | None = None,
) -> str:
    """The HTML text of the report."""
    figures = dict(FIGURES)
    if profile:
        figures["Profile likelihood"] = profile_picture
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        facts(fit, source),
        *(
            f"<p class='note'>{html.escape(text)}</p>"
            for text in dict.fromkeys([*fit.warnings, *(notes or [])])
        ),
        "<h2>Fixed effects</h2>",
        table(coefficients(fit, level)),
        ratios(fit, level),
        "<h2>Standard deviations and correlations</h2>",
        table(fit.tidy(effects="ran_pars").drop(columns="effect")),
        *(figure(name, draw, fit) for name, draw in figures.items()),
        "<h2>Predicted random effects</h2>",
        modes(fit),
        "<h2>The fit in numbers</h2>",
        table(fit.glance().T.reset_index().set_axis(["quantity", "value"], axis=1)),
        "<h2>Summary</h2>",
        f"<div class='wide'><pre>{html.escape(str(fit.summary()))}</pre></div>",
        made(),
    ]
    body = "\n".join(part for part in parts if part)
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width,initial-scale=1'>"
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body>\n{body}\n</body></html>\n"
    )


def facts(fit: Any, source: str) -> str:
    """One paragraph about the model and its data."""
    groups = " and ".join(f"{n:,} levels of {g}" for g, n in fit.ngroups.items())
    rows = f"{fit.nobs} rows of {source}{f' in {groups}' if groups else ''}"
    parts = (f"Family {fit.family_name}, link {fit.link_name}", rows, fit.in_words())
    text = "; ".join([*filter(None, parts), f"{fit.status}."])
    return f"<p class='fact'>{html.escape(text)}</p>"


def made() -> str:
    """Which program, when."""
    from jaxglmm._version import __version__

    return (
        f"<p class='fact'>jaxglmm {__version__}, Python "
        f"{platform.python_version()}, {date.today().isoformat()}</p>"
    )


def coefficients(fit: Any, level: float) -> Any:
    """The fixed effects; degrees of freedom only where there are any."""
    import numpy as np

    frame = fit.tidy(conf_int=True, level=level).drop(columns=["effect", "group"])
    if "df" in frame and np.isinf(frame["df"]).all():
        frame = frame.drop(columns="df")
    return frame


def ratios(fit: Any, level: float) -> str:
    """exp of the coefficients where these are logarithms of ratios: no intercept."""
    import numpy as np

    from jaxglmm.postestimation.report import frames

    what = frames.ratios(fit)
    if what is None:
        return ""
    frame = fit.tidy(conf_int=True, level=level)
    own = (frame["term"] != "(Intercept)") & (frame["effect"] == "fixed")
    if "component" in frame:  # logits of zeros, dispersions, thresholds of rows
        others = ("zi", "disp", *getattr(fit, "thresholds", ()))
        own &= ~frame["component"].isin(others)
    frame = frame[own]
    if frame.empty:
        return ""
    several = "component" in frame and frame["component"].nunique() > 1
    names = ["component"] if several else []
    out = frame[[*names, "term", "estimate", "conf_low", "conf_high"]].copy()
    for column in ("estimate", "conf_low", "conf_high"):
        out[column] = np.exp(out[column])
    out = out.rename(columns={"estimate": "ratio"})
    return f"<h2>{what.capitalize()}</h2>{table(out)}"


def modes(fit: Any) -> str:
    """The predicted random effects, the first of them where there are many."""
    frame = fit.tidy(effects="ran_vals").drop(columns="effect")
    more = len(frame) - MOST_ROWS
    text = table(frame.head(MOST_ROWS))
    if more > 0:
        text += f"<p class='fact'>{more} more are left out.</p>"
    return f"<details><summary>{len(frame)} values</summary>{text}</details>"


def table(frame: Any) -> str:
    """A frame as HTML; columns without a value are left out."""
    frame = frame.dropna(axis=1, how="all")
    marks = ["" if number(frame[c]) else " class='text'" for c in frame.columns]
    head = "".join(
        f"<th{mark}>{html.escape(str(c))}</th>"
        for mark, c in zip(marks, frame.columns, strict=True)
    )
    rows = "".join(
        "<tr>"
        + "".join(f"<td{m}>{cell(v)}</td>" for m, v in zip(marks, row, strict=True))
        + "</tr>"
        for row in frame.itertuples(index=False)
    )
    return (
        f"<div class='wide'><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


def number(column: Any) -> bool:
    """Whether a column holds numbers alone."""
    return all(isinstance(v, int | float) for v in column)


def cell(value: Any) -> str:
    """A value for a reader: four digits at least, nothing where it is missing."""
    if value is None or value != value:
        return ""
    if isinstance(value, float):
        return f"{value:#.4g}" if abs(value) < 100 else f"{value:.2f}"
    return html.escape(str(value))


def figure(name: str, draw: Callable[[Any], tuple[str, Any]], fit: Any) -> str:
    """One picture with its heading; nothing where the model has none."""
    import matplotlib.pyplot as plt
    import numpy as np

    try:
        text, axes = draw(fit)
    except JaxGLMMError as error:
        return f"<h2>{name}</h2><p class='fact'>{html.escape(str(error))}</p>"
    drawn = np.ravel(axes)[0].figure
    try:
        picture = svg(drawn) if fit.nobs <= MOST_POINTS else png(drawn)
    finally:
        plt.close(drawn)
    return (
        f"<h2>{name}</h2><figure role='img' aria-label='{html.escape(name)}'>"
        f"{picture}<figcaption>{text}</figcaption></figure>"
    )


def svg(drawn: Any) -> str:
    """A figure as SVG text for a page."""
    import matplotlib as mpl

    out = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "jaxglmm"}):
        drawn.savefig(out, format="svg", bbox_inches="tight", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def png(drawn: Any) -> str:
    """A figure as a bitmap for a page."""
    import base64

    out = io.BytesIO()
    drawn.savefig(out, format="png", dpi=140, bbox_inches="tight")
    data = base64.b64encode(out.getvalue()).decode()
    return f"<img alt='' src='data:image/png;base64,{data}'>"
