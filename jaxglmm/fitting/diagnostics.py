"""What can be wrong with the likelihood of a generalised model, told after the fit.

Coefficients that run off to infinity, random effects that do, a dispersion parameter at
the end of its range. Each is a ``Note``: the fact, the numbers, what to try. A healthy
fit pays for a few comparisons of numbers that it has at hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from jaxglmm import _errors
from jaxglmm.estimate.generalised import GeneralisedFitted
from jaxglmm.fitting import convergence as diagnose
from jaxglmm.fitting import separation
from jaxglmm.fitting.convergence import Note
from jaxglmm.fitting.estimates import Estimates
from jaxglmm.fitting.separation import Separation
from jaxglmm.formatting import numbers
from jaxglmm.formula import notices
from jaxglmm.formula.absent import AbsentRows
from jaxglmm.formula.design import Design, RandomTerm
from jaxglmm.model.families import AbstractFamily

NO_EXCESS = 1e-5  # variance beyond that of the simpler family, relative, that is none
NO_SPREAD = 1e-10  # variance of a row over that of the response
AT_END = 20.0  # |log dispersion| of a family that says nothing else
OF_THE_FIT = (
    *diagnose.OF_THE_FIT,
    _errors.SeparationWarning,
    _errors.DispersionWarning,
    _errors.ZeroInflationWarning,
)
CLOSE = 0.01  # to the end of a range of a dispersion parameter, on its own scale
SHOWN = 6  # names and cells in a message


@dataclass(frozen=True)
class ResponseSize:
    """mean of the response, and of what a trial gives; most trials of a row.

    variance: of the response; None where it is not known.
    """

    mean: float
    share: float
    most_trials: float
    variance: float | None


class Generalised(Protocol):
    """What is looked at of a generalised fit.

    fitted: what the search found, in internal coordinates; None where it was dropped.
    """

    design: Design
    family: AbstractFamily
    fitted: GeneralisedFitted | None

    @property
    def estimates(self) -> Estimates:
        """In the user's coordinates."""
        ...

    @property
    def engine(self) -> Any:
        """With the problem in internal coordinates."""
        ...

    @property
    def linear_predictor(self) -> np.ndarray:
        """(n,)."""
        ...

    @property
    def separation(self) -> Separation | None:
        """What ``separated`` says."""
        ...


def is_absent(rows: Any) -> bool:
    """Whether rows were read in batches."""
    return isinstance(rows, AbsentRows)


def notes(fit: Generalised) -> tuple[Note, ...]:
    """Everything worth a warning, that of any fit first."""
    if fit.family.family_kind == "ordinal":
        from jaxglmm.fitting.ordinal_notes import notes as of_categories

        return (*diagnose.notes(fit.design, fit.estimates), *of_categories(fit))
    if fit.design.parts:
        from jaxglmm.fitting.component_notes import notes as of_components

        own = (*of_components(fit), *at_ends(fit))
        return (*diagnose.notes(fit.design, fit.estimates), *own)
    found = [_separated(fit), *_running_off(fit), _dispersion(fit), *at_ends(fit)]
    own = [note for note in found if note is not None]
    return (*diagnose.notes(fit.design, fit.estimates), *own)


def warn(fit: Generalised) -> None:
    """Warn, once each, of what the fit found (the formula has warned of the data)."""
    for note in notes(fit):
        if note.category in OF_THE_FIT:
            notices.warn(note.text, note.category)


def separated(fit: Generalised) -> Separation | None:
    """What ``fit.separation`` says; a healthy fit is known by its largest |eta|."""
    kept = fit.fitted
    if is_absent(fit.design.y):
        return getattr(fit.engine, "separation", None)
    if kept is not None and not separation.possible(fit.family, kept.eta):
        return None
    eta, beta = fit.linear_predictor, fit.estimates.beta
    return separation.find(fit.design, fit.family, beta, eta)


# Fixed effects ------------------------------------------------------------------------


def _separated(fit: Generalised) -> Note | None:
    found = fit.separation
    if found is None:
        return None
    verb = "is" if len(found.coefficients) == 1 else "are"
    others = len(found.coefficients) < fit.design.p
    text = (
        f"Separation: the likelihood has no maximum, because {_named(found)} {verb} "
        f"infinite. {_where(fit, found)} {_far_out(fit, found)}"
        f"{' The other coefficients are not affected.' if others else ''} "
        f"{'Drop or merge the level' if found.cells else 'Drop a variable'}, or keep "
        "the coefficients finite by weak priors (Gelman et al. 2008): method='map'."
    )
    return Note(_errors.SeparationWarning, text)


def _named(found: Separation) -> str:
    if len(found.coefficients) == 1:
        return f"the coefficient of {found.coefficients[0]}"
    return f"the coefficients of {_some(found.coefficients)}"


def _where(fit: Generalised, found: Separation) -> str:
    """Which rows, and what is the matter with them."""
    binomial = fit.family.family_kind == "binomial"
    what = {
        True: "no success" if binomial else "a count of zero",
        False: "nothing but successes",
        None: "no success or nothing but successes",
    }[found.zeros]
    k, n = len(found.rows), fit.design.n_counted
    rows = "All rows" if k == n else f"The {k} rows" if found.cells else f"{k} rows"
    cells = f" with {_some(found.cells, ' or ')}" if found.cells and k < n else ""
    share = "" if k == n else f" ({k} of {n})" if not found.cells else f" (of {n})"
    if found.zeros is None:
        return f"{rows}{cells}{share} are told apart by the fixed effects alone."
    return f"{rows}{cells}{share} have {what}."


def _far_out(fit: Generalised, found: Separation) -> str:
    """The numbers that the optimiser stopped at."""
    j = fit.design.x_names.index(found.coefficients[0])
    at = f"{found.coefficients[0]} = {numbers.general(float(fit.estimates.beta[j]), 3)}"
    return (
        f"The optimiser stopped at {at}: that number says where it stopped, and its "
        "standard error nothing."
    )


def _some(names: tuple[str, ...], last: str = ", ") -> str:
    if len(names) > SHOWN:
        return f"{', '.join(names[:SHOWN])} and {len(names) - SHOWN} more"
    return last.join(names)


# Random effects -----------------------------------------------------------------------


def _running_off(fit: Generalised) -> list[Note]:
    """Terms whose effects are so far apart that levels are all zeros or all ones."""
    limit = fit.family.link.wide
    if limit is None or not fit.family.discrete or not fit.design.terms:
        return []
    if is_absent(fit.design.y):
        return []
    kept = fit.fitted
    if kept is not None and np.sum(fit.engine.base.split(kept.psi)[1] ** 2) < limit**2:
        return []
    pairs = zip(fit.design.terms, fit.estimates.lam, strict=True)
    spreads = [(term, _spread(fit, term, lam)) for term, lam in pairs]
    return [_runs_off(fit, term, sd) for term, sd in spreads if sd > limit]


def widest(fit: Generalised) -> tuple[float, float] | None:
    """Largest sd of a term on the scale of the predictor, and what is too large."""
    limit = fit.family.link.wide
    if limit is None or not fit.family.discrete or not fit.design.terms:
        return None
    pairs = zip(fit.design.terms, fit.estimates.lam, strict=True)
    return max(_spread(fit, term, lam) for term, lam in pairs), limit


def _spread(fit: Generalised, term: RandomTerm, lam: np.ndarray) -> float:
    """Root mean square over the rows of the sd of z'b."""
    values = term.values[fit.design.counted]
    return float(np.sqrt(np.mean(np.sum((values @ lam) ** 2, axis=1))))


def _runs_off(fit: Generalised, term: RandomTerm, sd: float) -> Note:
    constant = _constant_levels(fit, term)
    what = "no success or nothing but successes"
    if fit.family.family_kind != "binomial":
        what = "counts of zero alone"
    text = (
        f"The random effects of {term.label} have a standard deviation of "
        f"{numbers.general(sd, 3)} on the scale of the linear predictor "
        f"({fit.family.link.name}), which is as good as infinite: {constant} of "
        f"{fit.design.levels_counted(term)} levels have {what}, and such levels do "
        "not bound it. "
        "Laplace's approximation is poor here. Drop the term, join levels, observe "
        "each more often, or put a prior on the standard deviation: method='map'."
    )
    return Note(_errors.SeparationWarning, text)


def _constant_levels(fit: Generalised, term: RandomTerm) -> int:
    """Levels whose responses are all at one end."""
    design = fit.design
    used = np.ones(design.n, bool) if design.weights is None else design.weights > 0
    count = np.bincount(term.codes, used, term.n_levels)
    zeros = np.bincount(term.codes, used & (design.y == 0), term.n_levels)
    at_end = zeros == count
    if fit.family.family_kind == "binomial":
        trials = 1.0 if design.trials is None else design.trials
        full = np.bincount(term.codes, used & (design.y == trials), term.n_levels)
        at_end |= full == count
    return int(np.sum(at_end & (count > 0)))


# Dispersion ---------------------------------------------------------------------------


def facts_of(fit: Generalised) -> ResponseSize | None:
    """Of the rows that count; None of a streamed fit that came from a file."""
    if is_absent(fit.design.y):
        return getattr(fit.engine, "response", None)
    design, counted = fit.design, fit.design.counted
    y = design.y[counted]
    m = np.ones(len(y)) if design.trials is None else design.trials[counted]
    share = float(np.sum(y) / np.sum(m))
    return ResponseSize(float(np.mean(y)), share, float(np.max(m)), float(np.var(y)))


def _dispersion(fit: Generalised) -> Note | None:
    """A dispersion parameter at the end of its range."""
    phi = fit.estimates.phi
    if not len(phi) or not np.isfinite(phi).all():
        return None
    facts = facts_of(fit)
    if facts is None:
        return None
    name, value = next(iter(fit.family.dispersion(phi).items()))
    shown = f"{name} = {numbers.general(value, 3)}"
    simpler = fit.family.limit
    if simpler is not None:
        if _excess(fit, facts) > NO_EXCESS:
            return None
        text = (
            f"The data show no overdispersion: {shown} is the limit at which family "
            f"{fit.family.name!r} is {simpler!r}. Use family={simpler!r}: the other "
            "estimates are the same."
        )
        return Note(_errors.DispersionWarning, text)
    if _spread_share(fit, facts) < NO_SPREAD:
        text = (
            f"Fixed and random effects together reproduce the response: {shown}, and "
            "the likelihood has no maximum. Look for a response that is the same in "
            "all rows of a level, or for as many levels as rows."
        )
        return Note(_errors.DispersionWarning, text)
    far = np.abs(phi) > AT_END
    if far.any() and not fit.family.phi_in_units:
        name, value = [*fit.family.dispersion(phi).items()][int(np.argmax(far))]
        text = (
            f"The dispersion of family {fit.family.name!r} ran to the end of its "
            f"range: {name} = {numbers.general(value, 3)}. The data ask for less or "
            "more spread than the family has: use another one."
        )
        return Note(_errors.DispersionWarning, text)
    return None


def at_ends(fit: Generalised) -> list[Note]:
    """Dispersion parameters at an end where the family is another one, or none."""
    family, phi = fit.family, np.asarray(fit.estimates.phi)
    if not family.phi_ends or not np.isfinite(phi).all():
        return []
    found = []
    ends, values = family.end_of(phi, CLOSE), family.dispersion(phi)
    for end, (name, value) in zip(ends, values.items(), strict=True):
        if not end or name not in family.phi_ends:
            continue
        text = (
            f"Family {family.name!r}: {name} = {numbers.general(value, 3)} is at the "
            f"{'upper' if end > 0 else 'lower'} end of its range; "
            f"{family.phi_ends[name][int(end > 0)]}."
        )
        found.append(Note(_errors.DispersionWarning, text))
    return found


def _excess(fit: Generalised, facts: ResponseSize) -> float:
    """Variance over that of the simpler family, less one, at the mean response."""
    phi = fit.estimates.phi
    if fit.family.family_kind != "binomial":
        mu = max(facts.mean, 1e-300)
        return float(fit.family.variance(mu, phi) / mu - 1)
    mu, m = np.clip(facts.share, 1e-6, 1 - 1e-6), facts.most_trials
    return float(fit.family.variance(mu, phi, m) / (m * mu * (1 - mu)) - 1)


def _spread_share(fit: Generalised, facts: ResponseSize) -> float:
    """Variance of a row over that of the response, at the mean response."""
    if fit.family.discrete:
        return 1.0
    try:
        variance = fit.family.variance(np.float64(facts.mean), fit.estimates.phi)
    except _errors.NotApplicableError:
        return 1.0
    total = facts.variance
    return float(variance) / total if total else 1.0
