"""The residual covariance as text, and its rows: ``us(visit | arm / subject)``.

One correlation within subjects and what standard deviations depend on, by ``+``:

    ar1(time | g)               correlated within the levels of g
    us(visit | arm / subject)   within subjects, another covariance in each arm
    sp_exp(x + y)               over all rows, by the distance of coordinates
    varident(f)                 a standard deviation a level of f
    varpower(x), varexp(x)      proportional to |x|^d, to exp(d x)

Where an order is asked for it is that of a categorical's levels, of numbers, or of the
rows of a subject as they stand (``ar1(1 | g)``). nlme's spelling, ``corAR1(form = ~ t |
g)``, is read as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from jaxglmm._errors import FormulaError
from jaxglmm.formula.notices import nearest
from jaxglmm.formula.text import call, find_name, shown, split, translate, unquoted

# name -> how rows of a subject are placed: the order of visits, whole numbers that may
# skip, any numbers, or not at all; ``model.residuals`` has what the names mean
PLACES = {
    "us": "rank",
    "toep": "rank",
    "toeph": "rank",
    "ad": "rank",
    "adh": "rank",
    "ar1": "whole",
    "ar1h": "whole",
    "arma11": "whole",
    "cs": "",
    "csh": "",
    "car1": "number",
    "sp_exp": "number",
    "sp_gau": "number",
}
BY_VISIT = frozenset({"us", "toeph", "adh", "ar1h", "csh"})
ALIASES = {
    "unstructured": "us",
    "un": "us",
    "ar1het": "ar1h",
    "hetar1": "ar1h",
    "arh1": "ar1h",
    "ante1": "adh",
    "corar1": "ar1",
    "corcompsymm": "cs",
    "corcar1": "car1",
    "corexp": "sp_exp",
    "corgaus": "sp_gau",
    "corarma": "arma11",
}
VARIANCES = ("varident", "varpower", "varexp")
_FORM = re.compile(r"^\s*form\s*=\s*~")


@dataclass(frozen=True)
class Residual:
    """A residual covariance before the data.

    times: columns of the visit or the coordinates, none: order of the rows
    subject, group: columns whose combinations are the levels
    variances: (kind, column); parted: the rows are those of several data sets, in
    which subjects of one label are not the same
    """

    text: str
    structure: str = ""
    times: tuple[str, ...] = ()
    subject: tuple[str, ...] = ()
    group: tuple[str, ...] = ()
    variances: tuple[tuple[str, str], ...] = ()
    nugget: bool = False
    parted: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column of the table that is read."""
        used = (*self.times, *self.subject, *self.group)
        return (*used, *(name for _, name in self.variances))

    def resolved(self, names: Iterable[str]) -> Residual:
        """With the columns that the names mean; one that is none is refused."""
        known = tuple(names)

        def found(name: str) -> str:
            there = find_name(name, known)
            if there is None:
                raise FormulaError(
                    f"residual {self.text!r}: no column {name!r} in the data"
                    f"{nearest(name, known)}"
                )
            return there

        return replace(
            self,
            times=tuple(map(found, self.times)),
            subject=tuple(map(found, self.subject)),
            group=tuple(map(found, self.group)),
            variances=tuple((kind, found(name)) for kind, name in self.variances),
        )


def is_residual(name: str) -> bool:
    """Whether ``name(...)`` with a bar is a residual covariance of ``jg.mmrm``."""
    return name.lower() in PLACES or name.lower() in ALIASES


def taken_apart(formula: str) -> tuple[str, str | None]:
    """A formula of ``jg.mmrm`` as one without its residual covariance, and that.

    Raises:
        FormulaError: there are several.
    """
    if not isinstance(formula, str):
        raise FormulaError(f"the formula must be text, not {type(formula).__name__}")
    plain = translate(formula)
    sides = [side for _, side in split(plain, "~")]
    if len(sides) != 2:
        return formula, None  # the reader of formulas says what is wrong
    kept, found = [], []
    for sign, piece in split(sides[1], "+-"):
        head, argument = call(piece.strip())
        bar = any(mark == "|" for mark, _ in split(argument, "|"))
        if sign != "-" and bar and is_residual(head):
            found.append(piece.strip())
        else:
            kept.append(f"{sign or ' '} {piece.strip()}")
    if len(found) > 1:
        raise FormulaError(
            f"{shown(formula)} has {len(found)} residual covariances, "
            f"{' and '.join(found)}; there can be one"
        )
    if not found:
        return formula, None
    right = " ".join(kept).strip().removeprefix("+ ").strip() or "1"
    return f"{sides[0].strip()} ~ {right}", found[0]


def given_residual(text: str | Residual | None, names: Iterable[str]) -> Residual:
    """What was asked for, with the columns that its names mean; nothing where None."""
    if text is None:
        return Residual("")
    asked = text if isinstance(text, Residual) else read_residual(text)
    return asked.resolved(names)


def read_residual(text: str) -> Residual:
    """Read a residual covariance.

    Raises:
        FormulaError: what cannot be read, and what there is.
    """
    if not isinstance(text, str) or not text.strip():
        raise FormulaError(
            f"residual={text!r} must be text such as 'ar1(time | subject)'; there are "
            f"{', '.join(PLACES)}, and {', '.join(VARIANCES)}"
        )
    out = Residual(" ".join(text.split()))
    for _, raw in split(text, "+"):
        piece = raw.strip()
        head, argument = call(piece)
        name = ALIASES.get(head.lower(), head.lower())
        parts = [part.strip() for _, part in split(argument, ",")] if argument else []
        if name in VARIANCES and len(parts) == 1:
            column = _FORM.sub("", parts[0]).strip()
            column = column.split("|")[-1].strip() if name == "varident" else column
            out = replace(out, variances=(*out.variances, (name, _name(column, text))))
            continue
        if name not in PLACES or not parts:
            raise FormulaError(
                f"{shown(piece)} in residual={shown(text)} is not a residual "
                f"covariance; there are {', '.join(PLACES)}, as in 'ar1(time | "
                f"subject)', and {', '.join(VARIANCES)}, as in 'varident(f)'"
            )
        if out.structure:
            raise FormulaError(
                f"residual={shown(text)} has two correlations, {out.structure} and "
                f"{name}; there can be one, and any number of {', '.join(VARIANCES)}"
            )
        out = _correlation(out, name, parts, text)
    return out


def _correlation(out: Residual, name: str, parts: list[str], text: str) -> Residual:
    sides = [s.strip() for _, s in split(_FORM.sub("", parts[0]), "|")]
    if len(sides) > 2 or not all(sides):
        raise FormulaError(
            f"residual={shown(text)}: write {name}(time | subject), with one bar"
        )
    nugget = False
    for option in parts[1:]:
        key, _, value = (x.strip() for x in option.partition("="))
        if key == "nugget" and PLACES[name] == "number":
            nugget = value.lower() in ("true", "t", "1")
        elif key not in ("p", "q") or value != "1":
            raise FormulaError(
                f"residual={shown(text)}: {shown(option)} is not understood; "
                "car1, sp_exp and sp_gau take nugget=True"
            )
    times = tuple(_name(t, text) for _, t in split(sides[0], "+") if t.strip() != "1")
    within = [s.strip() for _, s in split(sides[1], "/")] if len(sides) == 2 else []
    if len(within) > 2:
        raise FormulaError(
            f"residual={shown(text)}: a group and a subject, as in {name}(time | arm / "
            f"subject), not {len(within)} factors"
        )
    levels = [tuple(_name(x, text) for _, x in split(w, ":")) for w in within]
    if len(times) != 1 and PLACES[name] in ("rank",):
        raise FormulaError(
            f"residual={shown(text)}: {name} needs one column that says the visit, as "
            f"in {name}(visit | subject)"
        )
    if (len(times) > 1 and PLACES[name] != "number") or (
        not times and (PLACES[name] == "number" or name in BY_VISIT)
    ):
        raise FormulaError(
            f"residual={shown(text)}: {name} takes one column for the time"
            + (" or several coordinates" if PLACES[name] == "number" else "")
        )
    if not levels and PLACES[name] != "number":
        raise FormulaError(
            f"residual={shown(text)}: within what are residuals correlated? Write "
            f"{name}({sides[0]} | subject)"
        )
    return replace(
        out,
        structure=name,
        times=times,
        subject=levels[-1] if levels else (),
        group=levels[0] if len(levels) == 2 else (),
        nugget=nugget,
    )


def _name(text: str, whole: str) -> str:
    text = text.strip()
    head, argument = call(text)
    if head in ("factor", "C"):
        text = argument.strip()
    name = unquoted(text) if text.startswith("`") else text
    if not re.fullmatch(r"[^()~|/*^,]+", name):
        raise FormulaError(
            f"residual={shown(whole)}: {shown(text)} must be the name of a column; "
            "compute it as a column first"
        )
    return name
