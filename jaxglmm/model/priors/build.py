"""Priors and a design to a belief: names are resolved and defaults filled in here.

Defaults are weak and know the scale of the data (as those of rstanarm and brms do):
with s = 1 on logit, log and the like and the response's standard deviation on the
identity link,

    coefficients   N(0, (2.5 s / sd(x))^2)
    intercept      N(centre, (2.5 s)^2), where all covariates are at their means
    sds            HalfT(3, 2.5 s / rms(z))
    correlations   LKJ(1)
    dispersion     sigma: HalfT(3, 2.5 s r), r the root of the weights' geometric mean
                   in a linear mixed model; others LogNormal over four powers of ten,
                   Uniform between the ends of a range, N(0, 2.5^2) without one
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxglmm._errors import ModelError
from jaxglmm.model import assemble, covariances
from jaxglmm.model.covariances import AbstractCovariance
from jaxglmm.model.families import AbstractFamily
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
from jaxglmm.model.priors.mixed_model_prior import Block, MixedBelief
from jaxglmm.numerics.special import HALF_LOG_2PI
from jaxglmm.structure.factors import Factor

if TYPE_CHECKING:
    from jaxglmm.formula.design import Design, RandomTerm

WIDTH = 2.5


@dataclass(frozen=True)
class Resolved:
    """Every parameter's prior by name.

    coefficients: (p,) normals; center: (p,) means that the intercept's prior is about,
    zeros where it is about zero; terms: label -> (priors of its sds, of correlations);
    dispersion: (n_phi,); given: names of those that the user gave.
    """

    coefficients: tuple[Normal, ...]
    intercept: int | None
    center: np.ndarray
    terms: dict[str, tuple[tuple[AbstractScalePrior, ...], LKJ | None]]
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
        for label, (sds, lkj) in self.terms.items():
            for name, prior in zip(self.names[label], sds, strict=True):
                add("sd", f"{label}:{name}", prior)
            if lkj is not None:
                add("correlation", label, lkj)
        for name, prior in zip(self.names["dispersion"], self.dispersion, strict=True):
            add("dispersion", name, prior)
        return rows

    def __str__(self) -> str:
        rows = self.table()
        widths = [max(len(row[k]) for row in rows) for k in range(3)]
        note = ""
        if self.intercept is not None and self.center.any():
            note = "\n(the intercept's is of the predictor at the covariates' means)"
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
    scale = _scale(design, family)
    intercept = _intercept(design)
    coefficients = _coefficients(design, family, priors, scale, intercept, given)
    center = np.zeros(design.p)
    if priors.centered and intercept is not None:
        center = design.X.mean(axis=0)
        center[intercept] = 0.0
    _check_correlation(design, priors)
    terms = {
        term.label: _term(term, design, priors, scale, given) for term in design.terms
    }
    names = {"coefficients": tuple(design.x_names), "dispersion": family.phi_names}
    names |= {term.label: term.names for term in design.terms}
    precise = assemble.precise(design, family).trials
    unit = 1.0 if precise is None else float(np.exp(np.mean(np.log(precise)) / 2))
    dispersion = _dispersion(family, priors, scale, unit, given)
    return Resolved(
        coefficients, intercept, center, terms, dispersion, names, frozenset(given)
    )


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


def _scale(design: Design, family: AbstractFamily) -> float:
    """What one unit of the predictor is worth."""
    if family.link.unit_free:
        return 1.0
    values = design.y if family.link.name == "identity" else _start(design, family)
    sd = float(np.std(values))
    return sd if sd > 0 else 1.0


def _start(design: Design, family: AbstractFamily) -> np.ndarray:
    eta, _ = family.start(design.y, design.trials)
    return eta if design.offset is None else eta - design.offset


def _intercept(design: Design) -> int | None:
    """The column of ones, if there is one."""
    ones = np.flatnonzero((design.X == 1.0).all(axis=0))
    return int(ones[0]) if len(ones) else None


def _coefficients(
    design: Design,
    family: AbstractFamily,
    priors: Priors,
    scale: float,
    intercept: int | None,
    given: set[str],
) -> tuple[Normal, ...]:
    names = list(design.x_names)
    by_name = named(priors.coefficients, names, "coefficients")
    listed = _listed(priors.coefficients, len(names))
    sds = design.X.std(axis=0)
    out = []
    for j, name in enumerate(names):
        own = by_name.get(name) if j == intercept else of(by_name, names, name)
        if own is None and listed is not None:
            own = listed[j]
        if own is None and j == intercept and priors.intercept is not None:
            own = priors.intercept
        if own is None and j != intercept and not by_name and listed is None:
            own = priors.coefficients
        if own is not None:
            given.add(f"coefficient {name}")
            out.append(normal_from(own, name))
        elif j == intercept:
            out.append(Normal(_centre(design, family), WIDTH * scale))
        else:
            size = sds[j] if sds[j] > 0 else max(np.abs(design.X[:, j]).max(), 1e-300)
            out.append(Normal(0.0, WIDTH * scale / size))
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
    if family.family_kind == "binomial" or family.link.name in ("logit", "probit"):
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
) -> tuple[tuple[AbstractScalePrior, ...], LKJ | None]:
    known = [t.label for t in design.terms]
    known += [f"{t.label}:{name}" for t in design.terms for name in t.names]
    by_name = named(priors.sd, known, "terms")
    sds = []
    for i, name in enumerate(term.names):
        key = f"{term.label}:{name}"
        own = of(by_name, known, key, term.label)
        if own is None and not by_name:
            own = priors.sd
        if own is not None:
            given.add(f"sd {key}")
            sds.append(scale_from(own, key))
            continue
        size = float(np.sqrt(np.mean(term.values[:, i] ** 2)))
        sds.append(HalfT(3.0, WIDTH * scale / (size if size > 0 else 1.0)))
    if not covariances.of(term).pairs:
        return tuple(sds), None
    labels = [t.label for t in design.terms]
    lkj = of(named(priors.correlation, labels, "terms"), labels, term.label)
    if lkj is None and not isinstance(priors.correlation, dict):
        lkj = priors.correlation
    if lkj is None:
        return tuple(sds), LKJ(1.0)
    given.add(f"correlation {term.label}")
    return tuple(sds), lkj_from(lkj, term.label)


def _check_correlation(design: Design, priors: Priors) -> None:
    """A prior of correlations needs some."""
    none = [t.label for t in design.terms if not covariances.of(t).pairs]
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
    own: tuple[AbstractCovariance, ...],
    R: np.ndarray,
) -> MixedBelief:
    """The belief in a problem's own coordinates, NumPy inside.

    factors, R: of its rows; their T must be diagonal (``independent_columns``).
    """
    p = design.p
    A = np.eye(p)
    if resolved.intercept is not None:
        A[resolved.intercept] += resolved.center
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
    blocks: list[Any] = [None] * len(design.terms)
    for f, factor in enumerate(factors):
        for term, start, stop in factor.spans:
            sds, lkj = resolved.terms[design.terms[term].label]
            T = np.diag(factor.T)[start:stop]
            blocks[term] = Block(_numbers(sds), _numbers(lkj), T, f, start)
    return MixedBelief(
        np.linalg.solve(back, mean) if p else mean,
        (precision + precision.T) / 2,
        np.float64(constant),
        tuple(blocks),
        _numbers(resolved.dispersion),
        family,
        own,
    )


def _numbers(prior: Any) -> Any:
    """Python numbers as NumPy's, so that every belief is of one type when compiled."""
    import jax

    return jax.tree.map(np.float64, prior)
