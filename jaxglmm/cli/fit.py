"""Fit a model to a table in a file; print, and write tables, a report, draws.

Results go to standard output (the summary, or JSON), everything else to standard error.
Exit codes: 0 fitted, 2 the request cannot be met, 3 fitted but not converged.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxglmm._errors import DataError, JaxGLMMWarning, NotApplicableError
from jaxglmm.cli.progress import keep_compiled_programs, step

NOT_CONVERGED = 3
STDOUT = Path("-")
LINKS = (
    *("identity", "log", "logit", "probit", "cloglog", "loglog", "cauchit", "sqrt"),
    "inverse",
    "1/mu^2",
)
NO = "nominal"  # the kind of families of categories without an order
LIKELIHOOD = ("reml", "ml", "laplace", "agq")
FAMILIES = (  # a test holds them to the table of families, which takes JAX to import
    "gaussian",
    "binomial",
    "bernoulli",
    "poisson",
    "nbinom2",
    "nbinom1",
    "gamma",
    "inversegaussian",
    "beta",
    "betabinomial",
    "student",
    "t",
    "lognormal",
    "skewnormal",
    "genpois",
    "compois",
    "tweedie",
    "ordbeta",
    "one_inflated_beta",
    "cumulative",
    "multinomial",
    "truncated_poisson",
    "truncated_nbinom2",
    "truncated_nbinom1",
)
EXAMPLE = """examples:
  jaxglmm fit sleep.csv "Reaction ~ Days + (Days | Subject)" --html report.html
  jaxglmm fit herds.csv "cbind(sick, well) ~ period + (1 | herd)" --family binomial
  jaxglmm fit trial.csv "change ~ arm * visit" --residual "us(visit | id)"
  cat sleep.csv | jaxglmm fit - "Reaction ~ Days + (1 | Subject)" --tidy - | sort
"""
EFFECTS = ("fixed", "ran_pars", "ran_vals", "all")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``jaxglmm fit``."""
    parser.add_argument("data", help="CSV, TSV, Parquet or .xlsx file; - for stdin")
    parser.add_argument("formula", help="such as 'y ~ x + (1 | g)'")
    model = parser.add_argument_group("the model")
    model.add_argument(
        "--family",
        default="gaussian",
        help=f"{', '.join(FAMILIES)} (default gaussian)",
    )
    model.add_argument("--link", help=f"default: the family's own; {', '.join(LINKS)}")
    model.add_argument(
        "--method",
        help="gaussian: reml (default), ml; others: laplace (default), agq; all: "
        "nested-laplace, map, vb, nuts",
    )
    model.add_argument("--weights", metavar="COLUMN", help="prior weights")
    model.add_argument("--offset", metavar="COLUMN", help="known part of the predictor")
    model.add_argument(
        "--residual",
        metavar="COVARIANCE",
        help="of a gaussian model, such as 'us(visit | subject)', 'ar1(t | g)'",
    )
    model.add_argument(
        "--ddf",
        help="with --residual: satterthwaite (default), kenward-roger, "
        "kenward-roger-linear, between-within, residual",
    )
    model.add_argument(
        "--trials", metavar="COLUMN", help="trials of a binomial response"
    )
    model.add_argument(
        "--zi", metavar="FORMULA", help="of the probability of added zeros, '~ x'"
    )
    model.add_argument("--dispersion", metavar="FORMULA", help="its formula, '~ x'")
    ordered = parser.add_argument_group("ordered categories, --family cumulative")
    ordered.add_argument(
        "--levels", metavar="A,B,C", help="the categories of text in their order"
    )
    ordered.add_argument(
        "--thresholds", help="flexible (default), symmetric, symmetric2, equidistant"
    )
    ordered.add_argument(
        "--nominal",
        metavar="FORMULA",
        help="of effects that differ from threshold to threshold, '~ x'",
    )
    model.add_argument(
        "--missing", choices=("drop", "raise"), default="drop", help="rows with gaps"
    )
    model.add_argument(
        "--factor",
        action="append",
        default=[],
        metavar="COLUMN",
        help="numbers in this column are names of levels (may be repeated)",
    )
    model.add_argument(
        "--max-iter",
        type=int,
        default=200,
        metavar="N",
        help="most evaluations of the likelihood (default 200)",
    )
    model.add_argument(
        "--trust-formula",
        action="store_true",
        help="let the formula use all of Python: without it arithmetic, NumPy's "
        "mathematical functions and the transforms are known",
    )
    file = parser.add_argument_group("the file")
    file.add_argument("--sheet", help="of a workbook: name, or number from 1")
    file.add_argument("--sep", help="between columns of a text file")
    file.add_argument("--decimal", help="decimal mark of a text file, '.' or ','")
    file.add_argument("--encoding", help="of a text file (default UTF-8)")
    out = parser.add_argument_group("what is written")
    out.add_argument("--json", action="store_true", help="JSON on stdout, no summary")
    out.add_argument("--html", type=Path, metavar="FILE", help="a report with pictures")
    out.add_argument(
        "--latex", type=Path, metavar="FILE", help="the summary's tables for a paper"
    )
    out.add_argument(
        "--tidy",
        type=Path,
        metavar="FILE",
        help="estimates as CSV; - for standard output, without the summary",
    )
    out.add_argument("--effects", choices=EFFECTS, default="fixed", help="of --tidy")
    out.add_argument(
        "--augment",
        type=Path,
        metavar="FILE",
        help="rows with fits as CSV; - for standard output, without the summary",
    )
    out.add_argument("--arviz", type=Path, metavar="FILE", help="draws as netCDF")
    out.add_argument("--save", type=Path, metavar="FILE", help="the fit, for jg.load")
    out.add_argument("--level", type=float, default=0.95, help="of intervals")
    out.add_argument("--profile", action="store_true", help="profiles in the report")
    out.add_argument("--quiet", action="store_true", help="no progress on stderr")


def run(args: argparse.Namespace) -> int:
    """Read, fit, print, write."""
    if not 0 < args.level < 1:
        raise NotApplicableError(f"--level {args.level} must lie between 0 and 1")
    check_outputs(args)
    say = quiet if args.quiet else step
    keep_compiled_programs()
    with say(f"reading {args.data}"):
        data = as_factors(read(args), args.factor)
    with say("fitting (the first time compiles)"), noted() as notes:
        fit = fitted(args, data)
        summary = str(fit.summary())
    if args.json:
        print(json.dumps(as_json(fit, args.level, notes), indent=2, allow_nan=False))
    elif STDOUT not in (args.tidy, args.augment):
        print(summary, flush=True)
    for path, write in outputs(fit, args, data, notes):
        with say(f"writing {path}"):
            write()
    return 0 if fit.converged else NOT_CONVERGED


def read(args: argparse.Namespace) -> Any:
    """The table in the file."""
    from jaxglmm.cli.tables import read_table

    return read_table(args.data, args.sheet, args.sep, args.decimal, args.encoding)


def check_outputs(args: argparse.Namespace) -> None:
    """Refuse what could not be written before anything is fitted."""
    for option in ("html", "latex", "tidy", "augment", "arviz", "save"):
        path = getattr(args, option)
        if path is None:
            continue
        if path == STDOUT:
            if option not in ("tidy", "augment"):
                raise NotApplicableError(f"--{option} -: name a file; it is no text")
            continue
        if path.is_dir():
            raise NotApplicableError(f"--{option} {path} is a folder; name a file")
        if not path.parent.is_dir():
            raise NotApplicableError(f"--{option} {path}: no folder {path.parent}")
    once = [args.tidy == STDOUT, args.augment == STDOUT, args.json]
    if sum(once) > 1:
        raise NotApplicableError(
            "only one of --tidy -, --augment - and --json can have standard output"
        )


def as_factors(data: Any, columns: list[str]) -> Any:
    """The table with some columns as categories."""
    for column in columns:
        if column not in data.columns:
            known = ", ".join(map(str, data.columns))
            raise DataError(f"--factor {column}: no such column; there are {known}")
        data = data.assign(**{column: data[column].astype("category")})
    return data


@contextlib.contextmanager
def quiet(text: str) -> Iterator[None]:
    """Say nothing."""
    yield


@contextlib.contextmanager
def noted() -> Iterator[list[str]]:
    """Pass warnings on, and keep the texts of our own."""
    notes: list[str] = []
    shown = warnings.showwarning

    def keep(message, category, *rest, **more) -> None:
        if issubclass(category, JaxGLMMWarning):
            notes.append(str(message))
        shown(message, category, *rest, **more)

    warnings.showwarning = keep
    try:
        yield notes
    finally:
        warnings.showwarning = shown


def fitted(args: argparse.Namespace, data: Any, method: str | None = None) -> Any:
    """``jg.lmm`` for a Gaussian response with its own link, else ``jg.glmm``.

    method: in place of the one that was asked for.
    """
    from jaxglmm.formula import known_functions_only

    if args.trust_formula:
        return fitted_by(args, data, method)
    with known_functions_only():
        return fitted_by(args, data, method)


def fitted_by(args: argparse.Namespace, data: Any, method: str | None) -> Any:
    """See ``fitted``; the formula may use whatever it may."""
    import jaxglmm as jg

    options = {
        "weights": args.weights,
        "offset": args.offset,
        "missing": args.missing,
        "max_iter": args.max_iter,
    }
    if method is not None or args.method is not None:
        options["method"] = method or args.method
    parts = {"zi": args.zi, "dispersion": args.dispersion}
    gaussian = args.family.lower() == "gaussian" and args.link in (None, "identity")
    if gaussian and not any(parts.values()):
        if args.trials is not None:
            raise NotApplicableError("--trials belongs to --family binomial")
        if args.residual is not None:
            options |= {"residual": args.residual, "ddf": args.ddf}
        elif args.ddf is not None:
            raise NotApplicableError("--ddf belongs to --residual")
        return jg.lmm(args.formula, data, **options)
    if args.residual is not None:
        raise NotApplicableError("--residual belongs to --family gaussian")
    family = family_of(args, data)
    options |= {"trials": args.trials, **parts}
    if args.nominal is not None:
        options["nominal"] = args.nominal
    return jg.glmm(args.formula, data, family=family, **options)


def family_of(args: argparse.Namespace, data: Any) -> Any:
    """The family by name, with its link and what is said of categories."""
    from jaxglmm.model.families import family_from

    named = family_from(args.family)
    told = {"levels": args.levels, "thresholds": args.thresholds}
    told = {name: value for name, value in told.items() if value is not None}
    kind = named.family_kind
    strange = [n for n in told if kind != "ordinal" and (n, kind) != ("levels", NO)]
    if strange:
        raise NotApplicableError(f"--{strange[0]} belongs to --family cumulative")
    response = args.formula.partition("~")[0].strip().strip("`")
    if "levels" in told:
        told["levels"] = levels_of(args.levels, data, response)
    elif kind == "ordinal" and is_plain_text(data, response):
        seen = sorted({str(v) for v in data[response].dropna()})
        raise NotApplicableError(
            f"{response!r} is text, whose categories have no order: state it, lowest "
            f"first, --levels {','.join(seen[:8])}"
        )
    if not told and args.link is None:
        return args.family
    return type(named)(args.link, **told)


def is_plain_text(data: Any, column: str) -> bool:
    """Whether a column is text that does not say its order."""
    from pandas.api.types import is_object_dtype, is_string_dtype

    found = data[column].dtype if column in data.columns else None
    return found is not None and (is_object_dtype(found) or is_string_dtype(found))


def levels_of(text: str, data: Any, column: str) -> list[Any]:
    """Categories as they stand in the data: numbers where these are numbers."""
    words = [word.strip() for word in text.split(",")]
    if column in data.columns and data[column].dtype.kind in "iufb":
        known = {str(v): v for v in data[column].dropna().unique().tolist()}
        return [known.get(word, word) for word in words]
    return words


def outputs(fit: Any, args: argparse.Namespace, data: Any, notes: list[str]):
    """(path, writer) for every file that was asked for."""
    if args.tidy is not None:
        yield (
            args.tidy,
            lambda: as_csv(tidy(fit, args.effects, args.level), args.tidy),
        )
    if args.augment is not None:
        yield args.augment, lambda: as_csv(fit.augment(), args.augment)
    if args.html is not None:
        from jaxglmm.cli import report

        title = f"{args.formula}"
        yield (
            args.html,
            lambda: report.write(
                fit, args.html, title, args.data, args.level, args.profile, notes
            ),
        )
    if args.latex is not None:
        text = fit.summary().latex
        yield args.latex, lambda: args.latex.write_text(text, encoding="utf-8")
    if args.arviz is not None:
        yield args.arviz, lambda: netcdf(with_posterior(fit, args, data), args.arviz)
    if args.save is not None:
        yield args.save, lambda: fit.save(args.save)


def as_csv(frame: Any, path: Path) -> None:
    """A frame as CSV in a file, or on standard output."""
    frame.to_csv(sys.stdout if path == STDOUT else path, index=False)


def tidy(fit: Any, effects: str, level: float) -> Any:
    """Estimates with their intervals."""
    return fit.tidy(effects=effects, conf_int=True, level=level)


def with_posterior(fit: Any, args: argparse.Namespace, data: Any) -> Any:
    """The fit, or where it maximised a likelihood the same model's posterior.

    ArviZ holds draws, and a maximum has none: they come from nested Laplace under the
    default weak priors, which is said.
    """
    if (args.method or "reml").lower() not in LIKELIHOOD:
        return fit
    warnings.warn(
        "--arviz: a maximum of the likelihood has no draws; the file holds the "
        "posterior of the same model under weak default priors "
        "(--method nested-laplace prints that fit too)",
        JaxGLMMWarning,
        stacklevel=2,
    )
    return fitted(args, data, method="nested-laplace")


def netcdf(fit: Any, path: Path) -> None:
    """The posterior for ArviZ."""
    fit.to_arviz().to_netcdf(str(path))


def as_json(fit: Any, level: float, notes: list[str]) -> dict[str, Any]:
    """The whole fit as JSON values; what is not a number is null."""
    from jaxglmm._version import __version__

    facts = fit.glance().iloc[0].to_dict()
    return plain(
        {
            "jaxglmm": __version__,
            "formula": fit.formula,
            "family": fit.family_name,
            "link": fit.link_name,
            "converged": fit.converged,
            "is_singular": fit.is_singular,
            "status": fit.status,
            "warnings": list(dict.fromkeys([*fit.warnings, *notes])),
            "n_obs": fit.nobs,
            "n_groups": fit.ngroups,
            "glance": facts,
            "fixed_effects": records(tidy(fit, "fixed", level)),
            "random_parameters": records(fit.tidy(effects="ran_pars")),
            "random_effects": records(fit.tidy(effects="ran_vals")),
            "seconds": fit.timing,
        }
    )


def records(frame: Any) -> list[dict[str, Any]]:
    """Rows as dicts without their empty cells."""
    return [
        {k: v for k, v in row.items() if plain(v) is not None}
        for row in frame.to_dict("records")
    ]


def plain(value: Any) -> Any:
    """NumPy's and pandas' values as JSON's."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)
