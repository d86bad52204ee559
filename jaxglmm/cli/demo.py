"""Fit classic data sets in every way there is; print the summaries, write figures.

An ``index.html`` beside them shows all of it. The sleep deprivation study has a random
line for each subject, the herds of cbpp are counts out of counts; the same herds have a
posterior, and the sleep study is repeated a thousand times. All of it comes with the
package.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxglmm.cli import pages
from jaxglmm.cli.progress import keep_compiled_programs, step
from jaxglmm.model.covariances import names

if TYPE_CHECKING:
    import pandas as pd

    from jaxglmm.results.fit import Fit

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
    "simulated": lambda fit: fit.plot.simulated_residuals(),
    "posterior": lambda fit: fit.plot.marginals(),
}


@dataclass(frozen=True)
class Example:
    """A data set, the model for it, what to tell about them, and what to write."""

    stem: str
    data: str
    door: str
    formula: str
    title: str
    text: str
    options: dict[str, str] = field(default_factory=dict)
    tables: tuple[str, ...] = tuple(TABLES)
    figures: tuple[str, ...] = ()

    @property
    def call(self) -> str:
        """What a user types for it."""
        options = "".join(f', {k}="{v}"' for k, v in self.options.items())
        data = f'jg.datasets.load("{self.data}")'
        return f'jg.{self.door}("{self.formula}", {data}{options})'

    def fit(self) -> Fit:
        """The fit."""
        import jaxglmm as jg

        data = jg.datasets.load(self.data)
        return getattr(jg, self.door)(self.formula, data, **self.options)


SLEEP = Example(
    stem="sleepstudy",
    data="sleepstudy",
    door="lmm",
    formula="Reaction ~ Days + (Days | Subject)",
    title="Sleep deprivation: a line for each of 18 subjects",
    text=(
        "Reaction times (ms) over ten days of little sleep. The fixed effects are\n"
        "the average line; (Days | Subject) lets every subject have a line of\n"
        "their own around it, with correlated intercepts and slopes."
    ),
    figures=("ranef", "residuals", "qq", "profile"),
)

HERDS = Example(
    stem="cbpp",
    data="cbpp",
    door="glmm",
    formula="cbind(incidence, size - incidence) ~ period + (1 | herd)",
    title="Contagious disease: counts out of counts in 15 herds",
    text=(
        "How many animals of a herd fell ill in each of four periods. A logistic\n"
        "model, the random effects of the herds integrated out by Laplace's method."
    ),
    options={"family": "binomial"},
    figures=("ranef", "simulated"),
)

BELIEF = Example(
    stem="cbpp_posterior",
    data="cbpp",
    door="glmm",
    formula=HERDS.formula,
    title="The same herds: what to believe, and how far",
    text=(
        "Draws from the posterior under weak priors, and a certificate that says how\n"
        "far they can be trusted."
    ),
    options={"method": "nested-laplace"},
    tables=("fixed", "variances"),
    figures=("posterior", "ranef"),
)

EXAMPLES = (SLEEP, HERDS, BELIEF)
WORLDS = 1000


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

    mpl.use("Agg")
    keep_compiled_programs()
    args.out.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    sections: list[pages.Section] = []
    for example in EXAMPLES:
        with step(f"fitting {example.stem} (the first time compiles)"):
            fit = example.fit()
            summary = str(fit.summary())
        headline(example.title, example.text)
        print(f"    {example.call}\n")
        print(f"{summary}\n", flush=True)
        if example is BELIEF:
            print(f"{fit.certificate}\n", flush=True)
        with step(f"writing tables and figures of {example.stem}"):
            files = list(write(fit, summary, example, args.out))
        more = f"\n\n{fit.certificate}" if example is BELIEF else ""
        sections.append(
            pages.Section(
                example.title, example.text, example.call, summary + more, files
            )
        )
        written += files
    sections.append(many_worlds(args.out))
    written += sections[-1].files
    index = args.out / "index.html"
    index.write_text(pages.page("jaxglmm demo", sections), encoding="utf-8")
    written.append(index)
    print(f"Figures and tables are in {args.out.resolve()}:")
    for path in written:
        print(f"    {path.name}")
    return 0


def headline(title: str, text: str) -> None:
    """A title and what there is to say."""
    print(f"\n{title}\n{'=' * len(title)}\n{text}\n")


def many_worlds(folder: Path) -> pages.Section:
    """The sleep study drawn and fitted a thousand times; its estimates to files."""
    import jaxglmm as jg

    sleep = jg.datasets.load(SLEEP.data)
    formula = "y ~ Days + (Days | Subject)"
    with step(f"fitting {WORLDS} sleep studies (the first time compiles)"):
        truth = SLEEP.fit()
        worlds = truth.simulate(WORLDS, seed=1).T
        jg.fit_many(formula, sleep, responses=worlds)
        many = jg.fit_many(formula, sleep, responses=worlds)  # its time, once compiled
    title = f"{WORLDS} sleep studies in one call"
    text = (
        "Drawn from the first fit; how well do models of 18 subjects find it again?\n"
        "In the picture a line marks the value that the studies were drawn with."
    )
    call = f'jg.fit_many("{formula}", sleepstudy, responses=worlds)'
    headline(title, text)
    print(f"    {call}\n")
    print(f"{many.summary()}\n", flush=True)
    table, picture = folder / "many.csv", folder / "many_estimates.png"
    many.tidy().to_csv(table, index=False)
    marks = dict(zip(truth.coefficient_names, truth.coefficients, strict=True))
    for label, term in truth.varcorr.items():
        marks |= {names.sd(name, label): sd for name, sd in term.sd.items()}
    marks["sigma"] = truth.sigma
    save_figure(many.plot.estimates(marks=marks), picture)
    return pages.Section(title, text, call, str(many.summary()), [table, picture])


def write(fit: Fit, summary: str, example: Example, folder: Path) -> Iterator[Path]:
    """Every table and figure of a fit to files ``<stem>_<what>.<kind>``."""
    path = folder / f"{example.stem}_summary.txt"
    path.write_text(summary + "\n", encoding="utf-8")
    yield path
    for what in example.tables:
        path = folder / f"{example.stem}_{what}.csv"
        TABLES[what](fit).to_csv(path, index=False)
        yield path
    for what in example.figures:
        path = folder / f"{example.stem}_{what}.png"
        save_figure(FIGURES[what](fit), path)
        yield path


def save_figure(axes: Any, path: Path) -> None:
    """Write the figure that ``axes`` (one, or an array) belong to, and forget it."""
    import matplotlib.pyplot as plt

    figure = np.ravel(axes)[0].figure
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)
