"""Fit two classic data sets; print the summaries, write figures and tables.

The sleep deprivation study has a random line for each subject (nested, correlated); the
penicillin assay has two crossed factors. Both come with the package.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxglmm.cli.progress import keep_compiled_programs, step

if TYPE_CHECKING:
    import pandas as pd

    from jaxglmm.results.fit import Fit


@dataclass(frozen=True)
class Example:
    """A data set, the model for it, and what to tell about them."""

    data: str
    formula: str
    title: str
    text: str


EXAMPLES = (
    Example(
        data="sleepstudy",
        formula="Reaction ~ Days + (Days | Subject)",
        title="Sleep deprivation: a line for each of 18 subjects",
        text=(
            "Reaction times (ms) over ten days of little sleep. The fixed effects are\n"
            "the average line; (Days | Subject) lets every subject have a line of\n"
            "their own around it, with correlated intercepts and slopes."
        ),
    ),
    Example(
        data="Penicillin",
        formula="diameter ~ 1 + (1 | plate) + (1 | sample)",
        title="Penicillin: 24 plates crossed with 6 samples",
        text=(
            "Each of six samples of penicillin was tested on each of 24 plates. Which\n"
            "varies more, samples or plates? Two crossed random intercepts answer it."
        ),
    ),
)

TABLES: dict[str, Callable[[Fit], pd.DataFrame]] = {
    "fixed": lambda fit: fit.tidy(conf_int=True),
    "variances": lambda fit: fit.tidy(effects="ran_pars"),
    "ranef": lambda fit: fit.tidy(effects="ran_vals"),
    "glance": lambda fit: fit.glance(),
    "augment": lambda fit: fit.augment(),
}

FIGURES: dict[str, Callable[[Fit], Any]] = {
    "ranef": lambda fit: fit.plot.ranef(),
    "residuals": lambda fit: fit.plot.residuals(),
    "qq": lambda fit: fit.plot.qq(),
    "profile": lambda fit: fit.plot.profile(),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``jaxglmm demo``."""
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("demo_out"),
        metavar="FOLDER",
        help="where figures and tables go (default: demo_out)",
    )


def run(args: argparse.Namespace) -> int:
    """Fit, print, write."""
    import matplotlib as mpl

    import jaxglmm as jg

    mpl.use("Agg")
    keep_compiled_programs()
    args.out.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for example in EXAMPLES:
        with step(f"fitting {example.data} (the first time compiles)"):
            fit = jg.lmm(example.formula, jg.datasets.load(example.data))
            summary = fit.summary()
        print(f"\n{example.title}\n{'=' * len(example.title)}\n{example.text}\n")
        print(f'    jg.lmm("{example.formula}", jg.datasets.load("{example.data}"))\n')
        print(f"{summary}\n", flush=True)
        with step(f"writing tables and figures of {example.data}"):
            written += write(fit, str(summary), args.out / example.data)
    print(f"Figures and tables are in {args.out.resolve()}:")
    for path in written:
        print(f"    {path.name}")
    return 0


def write(fit: Fit, summary: str, stem: Path) -> Iterator[Path]:
    """Every table and figure of a fit to files ``<stem>_<what>.<kind>``."""
    path = stem.with_name(f"{stem.name}_summary.txt")
    path.write_text(summary + "\n", encoding="utf-8")
    yield path
    for what, table in TABLES.items():
        path = stem.with_name(f"{stem.name}_{what}.csv")
        table(fit).to_csv(path, index=False)
        yield path
    for what, draw in FIGURES.items():
        path = stem.with_name(f"{stem.name}_{what}.png")
        save_figure(draw(fit), path)
        yield path


def save_figure(axes: Any, path: Path) -> None:
    """Write the figure that ``axes`` (one, or an array) belong to, and forget it."""
    import matplotlib.pyplot as plt

    figure = np.ravel(axes)[0].figure
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)
