"""Priors and a design to a belief: names are resolved and defaults filled in here.

Defaults are weak and know the scale of the data (as those of rstanarm and brms do):
with s = 1 on logit, log and the like and the response's standard deviation on the
identity link,

    coefficients   N(0, (2.5 s / sd(x))^2)
    intercept      N(centre, (2.5 s)^2), where all covariates are at their means
    sds            HalfT(3, 2.5 s / rms(z))
    correlations   LKJ(1)
    ranges         LogNormal, whose central 95 per cent reach from the smallest to the
                   largest distance between places, a factor of seven either way at
                   least; a smoothness LogNormal(0, 0.5)
    dispersion     sigma: HalfT(3, 2.5 s r), r the root of the weights' geometric mean
                   in a linear mixed model; others LogNormal over four powers of ten,
                   Uniform between the ends of a range, N(0, 2.5^2) without one
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxglmm._errors import ModelError
from jaxglmm.model import assemble, covariances
from jaxglmm.model.covariances import names
from jaxglmm.model.families import AbstractFamily
from jaxglmm.model.priors import thresholds
from jaxglmm.model.priors.distributions import (
    LKJ,
    AbstractDensity,
    AbstractScalePrior,
    Fixed,
    HalfT,
    LogNormal,
    Normal,
    Priors,
    Uniform,
    density_from,
    lkj_from,
    named,
    normal_from,
    of,
    scale_from,
    text,
)
from jaxglmm.model.priors.mixed_model_prior import (
    Block,
    MixedBelief,
    StructuredBlock,
)
from jaxglmm.numerics.special import HALF_LOG_2PI
from jaxglmm.structure.factors import Factor

if TYPE_CHECKING:
    from jaxglmm.formula.design import Design, RandomTerm

WIDTH = 2.5


@dataclass(frozen=True)
class TermPriors:
    """sds: of its standard deviations; lkj: of correlations, None without any.

    more: "range" and the like -> prior, of a structure that has them.
    """

    sds: tuple[AbstractScalePrior, ...]
    lkj: LKJ | None
    more: dict[str, AbstractScalePrior] = field(default_factory=dict)


@dataclass(frozen=True)
class Resolved:
    """Every parameter's prior by name.

    coefficients: (p,) normals; intercepts: their columns, one a linear predictor that
    has one; center: (intercepts, p) means of its predictor's columns that each one's
    prior is about, zeros where it is about zero; level: (p,) covariates that priors of
    thresholds are about; terms: label -> priors of its parameters; dispersion:
    (n_phi,), or thresholds; given: names of those that the user gave.
    """

    coefficients: tuple[Normal, ...]
    intercepts: tuple[int, ...]
    center: np.ndarray
    level: np.ndarray
    terms: dict[str, TermPriors]
    dispersion: tuple[AbstractDensity | Fixed, ...]
    names: dict[str, tuple[str, ...]]
    given: frozenset[str]

    def table(self) -> list[tuple[str, str, str, str]]:
        """(class, name, prior, "given" or "default") of every parameter."""
        rows = []

        def add(kind: str, name: str, prior: Any) -> None:
            source = "given" if f"{kind} {name}" in self.given else "default"
            rows.append((kind, name, text(prior), source))

        for name, prior in zip(
            self.names["coefficients"], self.coefficients, strict=True
        ):
            add("coefficient", name, prior)
        for label, own in self.terms.items():
            for name, prior in zip(self.names[label], own.sds, strict=True):
                add("sd", f"{label}:{name}", prior)
            if own.lkj is not None:
                add("correlation", label, own.lkj)
            for kind, prior in own.more.items():
                add(kind, label, prior)
        kind = "threshold" if self.level.size else "dispersion"
        for name, prior in zip(self.names["dispersion"], self.dispersion, strict=True):
            add(kind, name, prior)
        return rows

    def drawn_dispersion(
        self, family: AbstractFamily, rng: np.random.Generator, S: int
    ) -> np.ndarray:
        """(n_phi, S) draws of dispersion parameters, or of thresholds in order."""
        return thresholds.drawn(family, self.dispersion, rng, S)

    def __str__(self) -> str:
        rows = self.table()
        widths = [max(len(row[k]) for row in rows) for k in range(3)]
        note = ""
        if self.center.any():
            note = "\n(the intercept's is of the predictor at the covariates' means)"
        if self.level.any():
            note = "\n(thresholds' are of those at the covariates' means, in order)"
        return (
            "\n".join(
                f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:<{widths[2]}}  {d}"
                for a, b, c, d in rows
            )
            + note
        )


def resolve(design: Design, family: AbstractFamily, priors: Priors | None) -> Resolved:
    """Every parameter's prior.

    Raises:
        ModelError: a name that the model has not, or something that is no prior.
    """
    priors = Priors() if priors is None else priors
    if not isinstance(priors, Priors):
        raise ModelError(
            f"priors={priors!r} must be jg.Priors(...), such as "
            "jg.Priors(sd=jg.HalfNormal(1))"
        )
    given: set[str] = set()
    design = _counted(design)
    scales = _scales(design, family)
    intercepts = _intercepts(design)
    coefficients = _coefficients(design, family, priors, scales, intercepts, given)
    center = np.zeros((len(intercepts), design.p))
    means, of_x = design.X.mean(axis=0), np.array(design.of_x)
    for row, j in zip(center, intercepts, strict=True):
        own = of_x == of_x[j]
        row[own] = means[own] * priors.centered
        row[j] = 0.0
    _check_correlation(design, priors)
    terms = {
        term.label: _term(term, design, priors, scales[_first(term)], given)
        for term in design.terms
    }
    called = {"coefficients": tuple(design.x_names), "dispersion": family.phi_names}
    called |= {term.label: _sd_words(term) for term in design.terms}
    precise = assemble.precise(design, family).trials
    unit = 1.0 if precise is None else float(np.exp(np.mean(np.log(precise)) / 2))
    found = thresholds.resolved(design, family, priors, given)
    if found is None:
        dispersion = _dispersion(family, priors, scales[0], unit, given)
        found = dispersion, np.zeros(0)
    dispersion, level = found
    return Resolved(
        coefficients,
        intercepts,
        center,
        level,
        terms,
        dispersion,
        called,
        frozenset(given),
    )


def _first(term: RandomTerm) -> int:
    """The first linear predictor that a term is in."""
    return term.predictor if isinstance(term.predictor, int) else term.predictor[0]


def _counted(design: Design) -> Design:
    """The rows that count: those of weight zero say nothing of the data's scale."""
    here = design.counted
    if isinstance(here, slice):
        return design
    rows = {
        name: None if value is None else value[here]
        for name in ("y", "X", "weights", "offset", "trials")
        for value in (getattr(design, name),)
    }
    terms = tuple(
        replace(term, codes=term.codes[here], values=term.values[here])
        for term in design.terms
    )
    return replace(design, terms=terms, **rows)


def _scales(design: Design, family: AbstractFamily) -> list[float]:
    """What one unit of each predictor is worth."""
    links = family.predictor_links[: len(design.columns)]
    return [1.0 if link.unit_free else _scale(design, family) for link in links]


def _scale(design: Design, family: AbstractFamily) -> float:
    values = design.y if family.link.name == "identity" else _start(design, family)
    sd = float(np.std(values))
    return sd if sd > 0 else 1.0


def _start(design: Design, family: AbstractFamily) -> np.ndarray:
    eta, _ = family.start(design.y, design.trials)
    return eta if design.offset is None else eta - design.offset


def _intercepts(design: Design) -> tuple[int, ...]:
    """The first column of ones of every predictor that has one."""
    found: dict[int, int] = {}
    for j in np.flatnonzero((design.X == 1.0).all(axis=0)):
        found.setdefault(design.of_x[j], int(j))
    return tuple(found.values())


def _coefficients(
    design: Design,
    family: AbstractFamily,
    priors: Priors,
    scales: list[float],
    intercepts: tuple[int, ...],
    given: set[str],
) -> tuple[Normal, ...]:
    columns = list(design.x_names)
    by_name = named(priors.coefficients, columns, "coefficients")
    listed = _listed(priors.coefficients, len(columns))
    at_thresholds = thresholds.of_intercepts(design, family, priors, intercepts)
    sds = design.X.std(axis=0)
    out = []
    for j, name in enumerate(columns):
        first = j in intercepts and design.of_x[j] == 0
        own = by_name.get(name) if first else of(by_name, columns, name)
        if own is None and listed is not None:
            own = listed[j]
        if own is None and first and priors.intercept is not None:
            own = priors.intercept
        if own is None:
            own = at_thresholds.get(j)
        if own is None and j not in intercepts and not by_name and listed is None:
            own = priors.coefficients
        width = WIDTH * scales[design.of_x[j]]
        if own is not None:
            given.add(f"coefficient {name}")
            out.append(normal_from(own, name))
        elif j in intercepts:
            out.append(Normal(_centre(design, family) if first else 0.0, width))
        else:
            size = sds[j] if sds[j] > 0 else max(np.abs(design.X[:, j]).max(), 1e-300)
            out.append(Normal(0.0, width / size))
    return tuple(out)


def _listed(value: Any, p: int) -> list[Any] | None:
    """One prior a column, where they come as a sequence."""
    if not isinstance(value, list | tuple | np.ndarray):
        return None
    if len(value) != p:
        raise ModelError(
            f"priors give {len(value)} coefficients, the model has {p} columns"
        )
    return list(value)


def _centre(design: Design, family: AbstractFamily) -> float:
    """Where the predictor is in the middle of the data; 0 for probabilities."""
    probabilities = ("binomial", "ordinal", "nominal")
    if family.family_kind in probabilities or family.link.name in ("logit", "probit"):
        return 0.0
    if family.link.name == "log":
        mean = float(np.mean(design.y))
        if not mean > 0:  # half an event in all rows, or the size of the noise
            mean = 0.5 / design.n if family.discrete else float(np.std(design.y))
        offset = 0.0 if design.offset is None else float(np.mean(design.offset))
        return round(float(np.log(max(mean, 1e-300))) - offset, 3)
    return float(np.mean(_start(design, family)))


def _term(
    term: RandomTerm, design: Design, priors: Priors, scale: float, given: set[str]
) -> TermPriors:
    known = [t.label for t in design.terms]
    known += [f"{t.label}:{name}" for t in design.terms for name in _sd_words(t)]
    by_name = named(priors.sd, known, "terms")
    sds, sharing = [], np.array(covariances.of(term).sharing)
    for i, name in enumerate(_sd_words(term)):
        key = f"{term.label}:{name}"
        own = of(by_name, known, key, term.label)
        if own is None and not by_name:
            own = priors.sd
        if own is not None:
            given.add(f"sd {key}")
            sds.append(scale_from(own, key))
            continue
        squares = np.sum(term.values[:, sharing == i] ** 2, axis=1)
        size = float(np.sqrt(np.mean(squares)))
        sds.append(HalfT(3.0, WIDTH * scale / (size if size > 0 else 1.0)))
    kinds = _kinds(term)
    if not kinds:
        return TermPriors(tuple(sds), None)
    if names.COR not in kinds:
        return TermPriors(tuple(sds), None, _ranges(term, design, priors, given))
    keys = _correlated(design)
    lkj = of(named(priors.correlation, keys, "terms"), keys, term.label)
    if lkj is None and not isinstance(priors.correlation, dict):
        lkj = priors.correlation
        if isinstance(lkj, AbstractScalePrior) and _any_ranges(design):
            lkj = None  # which is for the ranges of others
    if lkj is None:
        return TermPriors(tuple(sds), LKJ(1.0))
    given.add(f"correlation {term.label}")
    return TermPriors(tuple(sds), lkj_from(lkj, term.label))


def _sd_words(term: RandomTerm) -> tuple[str, ...]:
    """Of its standard deviations: columns, or the word of what there is one of."""
    found = covariances.of(term).parameters(term.names)[0]
    return tuple(".".join(words) for words in found)


def _kinds(term: RandomTerm) -> list[str]:
    """What the term has beside standard deviations: "cor", "range", ..."""
    found = covariances.of(term).parameters(term.names)[1]
    return list(dict.fromkeys(kind for kind, _ in found))


def _any_ranges(design: Design) -> bool:
    return any(_kinds(t)[:1] not in ([], [names.COR]) for t in design.terms)


def _correlated(design: Design) -> list[str]:
    """Keys of ``Priors.correlation``."""
    kinds = [(t.label, _kinds(t)) for t in design.terms]
    own = [f"{x}:{k}" for x, found in kinds for k in found if k != names.COR]
    return [label for label, _ in kinds] + own


def _ranges(
    term: RandomTerm, design: Design, priors: Priors, given: set[str]
) -> dict[str, AbstractScalePrior]:
    """Of a range, and of what is beside it."""
    keys = _correlated(design)
    by_name = named(priors.correlation, keys, "terms")
    own, out = covariances.of(term), {}
    for kind in _kinds(term):
        one = kind == names.RANGE
        found = of(by_name, keys, f"{term.label}:{kind}", *[term.label] * one)
        if found is None and one and isinstance(priors.correlation, AbstractDensity):
            found = priors.correlation
        if found is not None:
            given.add(f"{kind} {term.label}")
            out[kind] = scale_from(found, f"the {kind} of {term.label}")
            continue
        if not one:
            out[kind] = LogNormal(0.0, 0.5)
            continue
        apart = own.correlation.distances[1:]  # type: ignore[attr-defined]
        middle = float(np.log(apart[0]) + np.log(apart[-1])) / 2
        reach = float(np.log(apart[-1]) - np.log(apart[0])) / 2
        out[kind] = LogNormal(middle, max(1.0, reach / 1.96))
    return out


def _check_correlation(design: Design, priors: Priors) -> None:
    """A prior of correlations needs some."""
    none = [t.label for t in design.terms if not _kinds(t)]
    given = priors.correlation
    asked = given if isinstance(given, dict) else {}
    wrong = [label for label in asked if label in none]
    if given is not None and not asked and len(none) == len(design.terms):
        wrong = none
    if wrong or (given is not None and not design.terms):
        raise ModelError(
            f"priors give a correlation, and the random effects {', '.join(wrong)} "
            "have none: one column a level, or (x || g)"
        )


def _dispersion(
    family: AbstractFamily,
    priors: Priors,
    scale: float,
    unit: float,
    given: set[str],
) -> tuple[AbstractDensity | Fixed, ...]:
    if not family.n_phi:
        if priors.dispersion is not None:
            raise ModelError(
                f"priors give a dispersion, and the family {family.name!r} has none"
            )
        return ()
    known = list(family.phi_names)
    by_name = named(priors.dispersion, known, "dispersion parameters")
    if not by_name and priors.dispersion is not None:
        by_name = dict.fromkeys(known, priors.dispersion)
    out = []
    centres = np.broadcast_to(family.phi_centre, (family.n_phi,))
    for name, own, centre in zip(known, family.scales, centres, strict=True):
        prior = of(by_name, known, name)
        if prior is not None:
            given.add(f"dispersion {name}")
            out.append(density_from(prior, name, own.ends))
        elif name == "sigma":
            out.append(HalfT(3.0, WIDTH * scale * unit))
        elif own.ends == (0.0, np.inf):
            out.append(LogNormal(float(centre), 2.0))
        elif np.isfinite(own.ends).all():
            out.append(Uniform(*own.ends))
        else:
            out.append(Normal(float(centre), WIDTH))
    fixed = sum(isinstance(prior, Fixed) for prior in out)
    if not family.phi_apart and 0 < fixed < family.n_phi:
        raise ModelError(
            f"the parameters {', '.join(known)} are known together or not at all: fix "
            "all of them or none"
        )
    return tuple(out)


def belief(
    resolved: Resolved,
    design: Design,
    family: AbstractFamily,
    factors: tuple[Factor, ...],
    R: np.ndarray,
) -> MixedBelief:
    """The belief in a problem's own coordinates, NumPy inside.

    factors, R: of its rows; their T must be diagonal (``independent_columns``).
    """
    p = design.p
    A = np.eye(p)
    A[list(resolved.intercepts)] += resolved.center
    sd = np.array([prior.sd for prior in resolved.coefficients])
    mean = np.array([prior.mean for prior in resolved.coefficients])
    weight = np.where(np.isfinite(sd), 1 / sd**2, 0.0)
    # gamma = A beta has the priors; beta = R^-1 times the problem's
    back = np.linalg.solve(R.T, A.T).T if p else A
    precision = back.T @ (weight[:, None] * back)
    proper = np.isfinite(sd)
    constant = -np.log(sd[proper]).sum() - proper.sum() * HALF_LOG_2PI
    if p and proper.all():
        constant += np.linalg.slogdet(back)[1]
    constant += thresholds.log_ordered(family, resolved.dispersion)
    blocks: list[Any] = [None] * len(design.terms)
    for f, factor in enumerate(factors):
        for term, start, stop in factor.spans:
            its = resolved.terms[design.terms[term].label]
            T = np.diag(factor.T)[start:stop]
            kind = covariances.of(design.terms[term])
            place = (T, f, start, kind)
            own = _numbers(its.sds), _numbers(its.lkj)
            if kind.has_own:
                more = _numbers(tuple(its.more.values()))
                blocks[term] = StructuredBlock(*own, *place, more)
            else:
                blocks[term] = Block(*own, *place)
    return MixedBelief(
        np.linalg.solve(back, mean) if p else mean,
        (precision + precision.T) / 2,
        np.float64(constant),
        tuple(blocks),
        _numbers(resolved.dispersion),
        family,
    )


def _numbers(prior: Any) -> Any:
    """Python numbers as NumPy's, so that every belief is of one type when compiled."""
    import jax

    return jax.tree.map(np.float64, prior)
