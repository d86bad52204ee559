"""A design with some of its terms left out, coded as its formula without them would be.

Rows, response, weights and offsets stay, and so does what transforms have learned of
the data. Columns that were dropped because they depended on those of a term that goes
come back, and factors are coded anew where an intercept or a margin is no longer there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from jaxglmm._errors import NotApplicableError
from jaxglmm.formula.coding import plan
from jaxglmm.formula.components import joined
from jaxglmm.formula.design import MARK, Design, FixedTerm, RandomTerm
from jaxglmm.formula.encode import build
from jaxglmm.formula.expand import contracted, in_each, is_expanded
from jaxglmm.formula.parse import RandomPart, parse
from jaxglmm.formula.rank import drop_dependent
from jaxglmm.formula.recipe import FormulaRecipe
from jaxglmm.formula.terms import Term
from jaxglmm.formula.text import quoted

INTERCEPT = "(Intercept)"
PLAIN = ("us", "diag")  # covariances whose columns are terms of a formula


def fixed_terms(design: Design) -> list[FixedTerm]:
    """Terms of the fixed effects with columns, the intercept left out.

    Of a design without a formula its columns.
    """
    if design.fixed_terms:
        return [t for t in design.fixed_terms if t.columns and t.variables]
    return [
        FixedTerm(name, frozenset([name]), (j,))
        for j, name in enumerate(design.x_names)
        if name != INTERCEPT
    ]


def droppable(design: Design) -> list[FixedTerm]:
    """Fixed terms that no other contains: what may go while margins are respected.

    Of unordered categories a term is that of all of them.
    """
    if is_expanded(design):
        return droppable(contracted(design))
    terms = [t for t in design.fixed_terms if t.variables] or fixed_terms(design)
    parts = {t.name: frozenset(_variables(t)) for t in terms}
    return [t for t in terms if not any(parts[t.name] < parts[o.name] for o in terms)]


def _variables(term: FixedTerm) -> list[str]:
    """Products in a name; an expression such as ``poly(x, 2)`` is one."""
    mark, _, name = term.name.rpartition(MARK)
    pieces, depth, piece = [], 0, ""
    for char in name:
        depth += (char in "([{") - (char in ")]}")
        if char == ":" and not depth:
            pieces.append(piece)
            piece = ""
        else:
            piece += char
    return [mark + MARK + p for p in [*pieces, piece]]


def without_fixed(design: Design, names: Collection[str]) -> Design:
    """The design without some of its fixed terms."""
    if is_expanded(design):
        return in_each(design, lambda one: without_fixed(one, names))
    if design.parts:
        return _of_parts(design, names, without_fixed)
    recipe = design.recipe
    if isinstance(recipe, FormulaRecipe) and recipe.training is not None:
        return _coded_anew(design, recipe, names)
    gone = {j for t in fixed_terms(design) if t.name in names for j in t.columns}
    rest = [j for j in range(design.p) if j not in gone]
    place = {j: i for i, j in enumerate(rest)}
    kept = tuple(
        replace(t, columns=tuple(place[j] for j in t.columns))
        for t in design.fixed_terms
        if t.name not in names
    )
    return replace(
        design,
        X=np.ascontiguousarray(design.X[:, rest]),
        x_names=tuple(design.x_names[j] for j in rest),
        fixed_terms=kept,
        null_space=None,
        recipe=None,
        formula=None,
    )


def _of_parts(design: Design, names: Collection[str], change: Any) -> Design:
    """The same of the predictor that each name is of."""
    parts = {}
    for k, (name, part) in enumerate(design.parts.items()):
        mark = f"{name}{MARK}" if k else ""
        own = [
            x.removeprefix(mark)
            for x in names
            if (x.startswith(mark) if k else MARK not in x)
        ]
        parts[name] = change(part, own) if own else part
    return joined(parts)


def _coded_anew(
    design: Design, recipe: FormulaRecipe, names: Collection[str]
) -> Design:
    """X of the terms that stay, of full rank."""
    terms = tuple(t for t in recipe.terms if t.name not in names)
    encoder, training = recipe.encoder, recipe.training
    assert training is not None
    values = encoder.apply(
        [a for t in terms for a in t.atoms], training.columns, design.n
    )
    made, X, spans = build(
        plan(terms, encoder.is_factor), encoder.codings, values, design.n
    )
    X, x_names, kept, dropped, missing = drop_dependent(X, made, 0, design.weights)
    place = {j: i for i, j in enumerate(kept)}
    known = {t.name: t for t in design.fixed_terms}
    fixed = tuple(
        replace(
            known.get(t.name, FixedTerm(t.name, frozenset(), ())),
            columns=tuple(place[j] for j in span if j in place),
            full=span,
        )
        for t, span in zip(terms, spans, strict=True)
    )
    formula = text_of(design, terms, recipe.random)
    return replace(
        design,
        X=X,
        x_names=x_names,
        fixed_terms=fixed,
        dropped_columns=dropped,
        null_space=missing,
        formula=formula,
        recipe=replace(
            recipe, formula=formula, fixed=fixed_text(terms), kept=tuple(kept)
        ),
    )


# Random terms ------------------------------------------------------------------------


def reductions(
    design: Design, whole: bool = False
) -> dict[str, tuple[int, tuple | None]]:
    """What may go of the random terms: name -> position and the terms that stay.

    As lmerTest's ``ranova`` has it: of a term with an intercept each column that no
    other contains, ``"Days in (Days | Subject)"``; what is left alone as a whole,
    ``"(1 | Subject)"``, where the terms that stay are None.

    Args:
        design: of the fit.
        whole: terms as wholes only.
    """
    if is_expanded(design):
        return reductions(contracted(design), whole)
    out: dict[str, tuple[int, tuple | None]] = {}
    parts = _parts(design)
    for k, term in enumerate(design.terms):
        part = parts.get(term.label)
        text = shown(term, part)
        inner = () if part is None else tuple(t for t in part.terms if t.atoms)
        has_one = part is not None and any(not t.atoms for t in part.terms)
        plain = term.covariance in PLAIN and part is not None and term.known is None
        if whole or not plain or not inner or (not has_one and len(inner) == 1):
            out[text] = (k, None)
            continue
        own = {t.name: frozenset(a.expr for a in t.atoms) for t in inner}
        for name, atoms in own.items():
            if not any(atoms < other for other in own.values()):
                stay = tuple(t for t in part.terms if t.name != name)  # type: ignore
                out[f"{name} in {text}"] = (k, stay)
    return out


def without_random(design: Design, at: int, stay: tuple[Term, ...] | None) -> Design:
    """The design without a random term, or with ``stay`` of its columns alone."""
    if is_expanded(design):
        return in_each(design, lambda one: without_random(one, at, stay))
    terms = list(design.terms)
    term = terms[at]
    if stay is None:
        del terms[at]
    else:
        terms[at] = _fewer(design, term, stay)
    if design.parts:
        own = {}
        for k, (name, part) in enumerate(design.parts.items()):
            mark = f"{name}{MARK}" if k else ""
            mine = [t for t in terms if t.predictor == k]
            back = [
                replace(t, label=t.label.removeprefix(mark), predictor=0) for t in mine
            ]
            own[name] = replace(part, terms=tuple(back))
        return joined(own)
    recipe = design.recipe
    if not isinstance(recipe, FormulaRecipe):
        return replace(design, terms=tuple(terms), recipe=None, formula=None)
    parts = list(recipe.random)
    place = next((i for i, p in enumerate(parts) if p.label == term.label), None)
    if place is None:
        return replace(design, terms=tuple(terms), recipe=None, formula=None)
    if stay is None:
        del parts[place]
    else:
        parts[place] = replace(parts[place], terms=stay, double=False)
    formula = text_of(design, recipe.terms, tuple(parts))
    again = parse(formula).random
    groups, labelled = {}, []
    for old, new, one in zip(parts, again, terms, strict=True):
        name = new.grouping.name
        groups[name] = replace(recipe.groups[old.grouping.name], name=name)
        labelled.append(replace(one, label=new.label, factor=name))
    made = replace(recipe, formula=formula, groups=groups)
    return replace(design, terms=tuple(labelled), recipe=made, formula=formula)


def _parts(design: Design) -> Mapping[str, RandomPart]:
    """Label -> random term as its formula has it, where there is one."""
    if design.parts:
        found: dict[str, RandomPart] = {}
        for k, (name, part) in enumerate(design.parts.items()):
            mark = f"{name}{MARK}" if k else ""
            found |= {mark + label: p for label, p in _parts(part).items()}
        return found
    recipe = design.recipe
    if not isinstance(recipe, FormulaRecipe) or recipe.training is None:
        return {}
    return {part.label: part for part in recipe.random}


def _fewer(design: Design, term: RandomTerm, stay: tuple[Term, ...]) -> RandomTerm:
    """A random term with the columns of some of its terms."""
    recipe: Any = design.recipe
    if design.parts:
        recipe = list(design.parts.values())[term.predictor].recipe  # type: ignore
    encoder, n = recipe.encoder, design.n
    atoms = [a for t in stay for a in t.atoms]
    values = encoder.apply(atoms, recipe.training.columns, n)
    names, Z, _ = build(plan(stay, encoder.is_factor), encoder.codings, values, n)
    return replace(term, names=names, values=Z)


def shown(term: RandomTerm, part: RandomPart | None) -> str:
    """A random term as a formula has it, ``(Days | Subject)``."""
    if part is not None:
        return random_text(part, named=False)
    names = [n for n in term.names if n != INTERCEPT]
    columns = [*(["1"] if len(names) < len(term.names) else ["0"]), *names]
    text = " + ".join(columns[1:] if columns[0] == "1" and names else columns)
    word = "" if term.covariance in PLAIN else term.structure
    return f"{word}({text} | {term.factor})"


def fixed_text(terms: tuple[Term, ...]) -> str:
    """The fixed part of a formula with these terms."""
    names = [t.name for t in terms if t.atoms]
    one = any(not t.atoms for t in terms)
    if one:
        return " + ".join(names) if names else "1"
    return " + ".join(["0", *names])


def random_text(part: RandomPart, named: bool = True) -> str:
    """A random term in brackets; named: groupings by columns, for ``parse``."""
    names = [t.name for t in part.terms if t.atoms]
    one = any(not t.atoms for t in part.terms)
    columns = names if one and names else ["1"] if one else ["0", *names]
    group = part.grouping.name
    if named and len(part.grouping.parts) > 1:
        group = ":".join(
            p if p.isidentifier() else quoted(p) for p in part.grouping.parts
        )
    word = "" if part.covariance == "us" else part.covariance
    if word.startswith("rr("):
        return f"rr({' + '.join(columns)} | {group}, d={word[3:-1]})"
    if word.partition("(")[0] not in ("", "diag") and columns[:1] == ["0"]:
        columns = columns[1:]
    return f"{word.partition('(')[0]}({' + '.join(columns)} | {group})"


def text_of(
    design: Design, terms: tuple[Term, ...], random: tuple[RandomPart, ...]
) -> str:
    """The whole formula."""
    recipe: Any = design.recipe
    pieces = [fixed_text(terms)]
    pieces += [f"offset({o})" for o in recipe.offsets]
    pieces += [random_text(part) for part in random]
    return f"{design.response} ~ {' + '.join(pieces)}"


def refuse_smooths(design: Design, what: str) -> None:
    """Formulas with smooths are not taken apart.

    Raises:
        NotApplicableError: there is one.
    """
    if type(design.recipe).__name__ == "SmoothRecipe":
        raise NotApplicableError(
            f"{what} does not take smooths s() apart: fit the model without one and "
            "compare by jg.anova(one, two)"
        )
