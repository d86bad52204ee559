"""A posterior for ArviZ: InferenceData of 0.x, DataTree of 1.x, with real names.

Variables: ``beta (term)``, ``sd_<g> (<g>_term)``, ``cor_<g> (<g>_pair)``, ``r_<g> (<g>,
<g>_term)`` for each random term g, and the dispersion by its name. Correlations are one
number a pair of effects, such as ``Days.(Intercept)``: a matrix has a diagonal that is
constant, and every number twice. What is known is in ``constant_data``. Responses of
discrete families are whole numbers, by which ArviZ knows to draw bars. Draws
of MAP, VB and importance sampling are one chain: they are independent, so R-hat and
effective sample sizes say nothing about the approximation; its k-hat does (an attribute
here, and ``Fit.certificate``).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError
from jaxglmm._version import __version__
from jaxglmm.fitting.kinds import is_ordinal
from jaxglmm.model import assemble, covariances
from jaxglmm.model.covariances.names import COR, NU, RANGE
from jaxglmm.model.priors.distributions import Fixed
from jaxglmm.posterior import loo as _loo

if TYPE_CHECKING:
    from jaxglmm.formula.design import RandomTerm
    from jaxglmm.model.covariances import AbstractCovariance
    from jaxglmm.posterior.fitted_posterior import FittedPosterior

MOST = 30_000_000  # draws times rows of log_likelihood and posterior_predictive
THRESHOLDS = "thresholds"  # of ordered categories
DIMENSIONS = ("chain", "draw", "term", "obs", "predictor", "threshold")
VARIABLES = ("beta", "X", "offset", "weights", "trials", "lp", THRESHOLDS)
GROUPS = (
    "posterior",
    "posterior_predictive",
    "log_likelihood",
    "prior",
    "observed_data",
    "constant_data",
    "sample_stats",
)


def to_arviz(
    fit: FittedPosterior,
    *,
    groups: tuple[str, ...] | None = None,
    log_likelihood: str = "row",
    effects: bool = True,
    draws: int | None = None,
    seed: int = 0,
) -> Any:
    """The posterior as ArviZ's own object.

    Args:
        fit: a Bayesian fit.
        groups: some of ``GROUPS``; all of them where None.
        log_likelihood: "row", given the random effects, or the name of the grouping
            factor: of whole groups, random effects integrated out, for ``az.loo`` that
            leaves out groups.
        effects: with the random effects ``r_<g>``.
        draws: draws a chain of log_likelihood and posterior_predictive (evenly spaced);
            all, where that is no more than 30 million numbers.
        seed: of the posterior predictive and the prior draws.

    Returns:
        ``arviz.InferenceData`` (arviz before 1) or ``xarray.DataTree``.

    Raises:
        NotApplicableError: an unknown group.

    Example:
        >>> import jaxglmm as jg
        >>> formula = "Yield ~ 1 + (1 | Batch)"
        >>> fit = jg.lmm(formula, jg.datasets.load("Dyestuff"), method="map")
        >>> tree = fit.to_arviz(groups=("posterior",))
        >>> tree["posterior"]["r_Batch"].sizes["Batch"]
        6
    """
    asked = GROUPS if groups is None else _arguments.names("groups", groups)
    effects = _arguments.flag("effects", effects)
    seed = _arguments.whole("seed", seed, 0, None, error=NotApplicableError)
    _loo.check_by(fit, log_likelihood, "log_likelihood")
    unknown = [name for name in asked if name not in GROUPS]
    if unknown:
        raise NotApplicableError(
            f"groups: {', '.join(map(repr, unknown))} unknown; there are "
            f"{', '.join(GROUPS)}"
        )
    names = _Names(fit)
    data: dict[str, Mapping[str, np.ndarray]] = {}
    thin = _thinned(fit, draws)
    makers = {
        "posterior": lambda: _posterior(fit, names, effects),
        "posterior_predictive": lambda: {names.response: _predictive(fit, thin, seed)},
        "log_likelihood": lambda: _log_likelihood(fit, names, log_likelihood, thin),
        "prior": lambda: _prior(fit, names, seed),
        "observed_data": lambda: {names.response: _whole(fit, fit.design.y)},
        "constant_data": lambda: _constants(fit, names),
        "sample_stats": lambda: _stats(fit),
    }
    for name in asked:
        made = makers[name]()
        if made:
            data[name] = made
    return _build(data, names, _attributes(fit, thin))


class _Names:
    """Names of variables, dimensions and coordinates."""

    def __init__(self, fit: FittedPosterior):
        design = fit.design
        self.labels = _apart([t.label for t in design.terms], fit.family.phi_names)
        self.response = _safe(design.response)
        while self.response in _used(fit, self.labels.values()):
            self.response += "_observed"
        self.coords: dict[str, Any] = {
            "term": [str(n) for n in design.x_names],
            "obs": np.arange(design.n),
        }
        self.dims: dict[str, list[str]] = {
            "beta": ["term"],
            "X": ["obs", "term"],
            self.response: ["obs"],
            "offset": ["obs"] if len(design.columns) == 1 else ["predictor", "obs"],
            "weights": ["obs"],
            "trials": ["obs"],
        }
        if is_ordinal(fit):
            self.coords["threshold"] = list(fit.family.phi_names)
            self.dims[THRESHOLDS] = ["threshold"]
        if design.parts:
            self.coords["predictor"] = list(design.parts)
        for term in design.terms:
            g = self.labels[term.label]
            own, known = covariances.of(term), term.known
            columns = [str(n) for n in (term.names if known is None else term.levels)]
            levels = term.levels if known is None else known.labels
            self.coords[g] = _level_names(levels)
            self.coords[f"{g}_term"] = columns
            self.dims[f"sd_{g}"] = [f"{g}_term"]
            self.dims[f"r_{g}"] = [g, f"{g}_term"]
            self.dims[f"{g}_idx"] = ["obs"]
            if own.has_own:
                self._structured(term, own, g)
            elif own.pairs:
                pairs = zip(*_below(len(columns)), strict=True)
                self.coords[f"{g}_pair"] = [
                    f"{columns[i]}.{columns[j]}" for i, j in pairs
                ]
                self.dims[f"cor_{g}"] = [f"{g}_pair"]

    def _structured(self, term: RandomTerm, own: AbstractCovariance, g: str) -> None:
        """Of a covariance with parameters of its own: as many sds, what is beside."""
        sds, beside = own.parameters(term.names)
        if len(sds) < len(term.names):
            self.coords[f"{g}_sd"] = [".".join(words) for words in sds]
            self.dims[f"sd_{g}"] = [f"{g}_sd"]
        pairs = [words for kind, words in beside if kind == COR]
        if pairs:
            self.coords[f"{g}_pair"] = [".".join(words) for words in pairs]
            self.dims[f"cor_{g}"] = [f"{g}_pair"]


def _safe(name: str) -> str:
    """A name that a netCDF file can hold."""
    return str(name).replace("/", "_per_")


def _apart(labels: list[str], variables: Iterable[str]) -> dict[str, str]:
    """Label -> its name here, which no other dimension and no variable has."""
    taken, out = {*DIMENSIONS, *VARIABLES, *variables}, {}
    for label in labels:
        name = _safe(label)
        while taken & {name, f"{name}_term", f"{name}_pair"}:
            name += "_group"
        taken |= {name, f"{name}_term", f"{name}_pair"}
        out[label] = name
    return out


def _level_names(levels: Iterable[Any]) -> list[str]:
    """Levels as text; 1 and "1" in quotation marks where they would be one."""
    known = list(levels)
    names = [str(level) for level in known]
    if len(set(names)) == len(names):
        return names
    return [repr(v.item() if isinstance(v, np.generic) else v) for v in known]


def _used(fit: FittedPosterior, groups: Iterable[str]) -> set[str]:
    """Names of dimensions, and of variables in whatever group."""
    out = {*DIMENSIONS, *VARIABLES, *fit.family.phi_names, *fit.posterior.sample_stats}
    for g in groups:
        out |= {g, f"{g}_term", f"{g}_pair", f"{g}_idx", f"log_lik_{g}"}
        out |= {f"{kind}_{g}" for kind in ("sd", "cor", "r", RANGE, NU)}
    return out


def _below(q: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the pairs of q effects, each pair once."""
    return np.tril_indices(q, -1)


def _pairs(R: np.ndarray) -> np.ndarray:
    """(S, q, q) correlations to (S, pairs)."""
    i, j = _below(R.shape[-1])
    return R[:, i, j]


def _whole(fit: FittedPosterior, y: np.ndarray) -> np.ndarray:
    """Responses; as integers where the family has no others, and there are none."""
    y, seen = np.asarray(y), np.asarray(fit.design.y)
    whole = fit.family.discrete and np.array_equal(seen, np.rint(seen))
    if not whole or not (np.abs(y) < 2.0**63).all():
        return y
    return y.astype(np.int64)


def _known(fit: FittedPosterior) -> dict[str, float]:
    """Dispersion parameters that are held, and their values."""
    priors = zip(fit.family.phi_names, fit.priors.dispersion, strict=True)
    return {name: float(p.value) for name, p in priors if isinstance(p, Fixed)}


def _chained(fit: FittedPosterior, x: np.ndarray) -> np.ndarray:
    """(S, ...) to (chains, draws, ...)."""
    return x.reshape(fit.posterior.chains, -1, *x.shape[1:])


def _posterior(
    fit: FittedPosterior, names: _Names, effects: bool
) -> dict[str, np.ndarray]:
    d = fit.posterior.draws
    out = {"beta": d.beta} if fit.design.p else {}
    for term in fit.design.terms:
        g = names.labels[term.label]
        out[f"sd_{g}"] = d.sd[term.label]
        if term.label in d.corr:
            out[f"cor_{g}"] = _pairs(d.corr[term.label])
        if term.label in d.more:
            out |= _beside(term, g, d.more[term.label])
        if effects and d.effects is not None:
            out[f"r_{g}"] = fit.posterior.effects(term.label)
    known = _known(fit)
    free = {name: x for name, x in d.dispersion.items() if name not in known}
    out |= _joined(fit, free)
    return {name: _chained(fit, x) for name, x in out.items()}


def _joined(fit: FittedPosterior, free: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Dispersion parameters as they are, thresholds (S,) as one variable (S, L)."""
    if not free or not is_ordinal(fit):
        return free
    return {THRESHOLDS: np.stack([*free.values()], axis=1)}


def _beside(term: RandomTerm, g: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """What a structure has beside standard deviations: cor_g (S, r), range_g (S,)."""
    kinds = [kind for kind, _ in covariances.of(term).parameters(term.names)[1]]
    if COR in kinds:
        return {f"cor_{g}": values}
    return {f"{kind}_{g}": values[:, i] for i, kind in enumerate(kinds)}


def _thinned(fit: FittedPosterior, draws: int | None) -> np.ndarray:
    """Positions (chains, draws) of the draws that meet the rows."""
    p = fit.posterior
    own = np.arange(p.n_draws).reshape(p.chains, -1)
    most = max(1, min(own.shape[1], MOST // max(1, p.chains * fit.design.n)))
    if draws is not None:
        meaning = "draws of each chain"
        most = _arguments.whole(
            "draws", draws, 1, own.shape[1], meaning=meaning, error=NotApplicableError
        )
    return own[:, np.linspace(0, own.shape[1] - 1, most).astype(int)]


def _predictive(fit: FittedPosterior, thin: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    m = assemble.precise(fit.design, fit.family).trials
    trials = 1.0 if m is None else m
    phi = _loo.dispersion(fit)
    out = np.empty((thin.size, fit.design.n))
    for where, here in _loo.blocks(thin.ravel(), fit.design.n):
        own = here[: where.stop - where.start]
        mu = np.asarray(fit.family.parameters(_loo.predictors(fit, own)), float)
        out[where] = fit.family.simulate(rng, mu, phi[own].T[:, :, None], trials)
    return _whole(fit, out.reshape(*thin.shape, -1))


def _log_likelihood(
    fit: FittedPosterior, names: _Names, by: str, thin: np.ndarray
) -> dict[str, np.ndarray]:
    if by == "row":
        values = _loo.row_log_likelihood(fit, thin.ravel())
        return {names.response: values.reshape(*thin.shape, -1)}
    values = _loo.group_log_likelihood(fit, by)
    label = next(t.label for t in fit.design.terms if t.factor == by)
    g = names.labels[label]
    names.dims[f"log_lik_{g}"] = [g]
    return {f"log_lik_{g}": _chained(fit, values)}


def _prior(fit: FittedPosterior, names: _Names, seed: int) -> dict[str, np.ndarray]:
    """Draws of the priors, where all of them are proper."""
    resolved = fit.priors
    if not all(np.isfinite(prior.sd) for prior in resolved.coefficients):
        return {}
    S, rng = 1000, np.random.default_rng(seed + 1)
    out = {}
    if fit.design.p:
        beta = np.stack([p.sample(rng, S) for p in resolved.coefficients], axis=1)
        beta[:, list(resolved.intercepts)] -= beta @ resolved.center.T
        out["beta"] = beta
    for term in fit.design.terms:
        g = names.labels[term.label]
        own, its = covariances.of(term), resolved.terms[term.label]
        out[f"sd_{g}"] = np.stack([p.sample(rng, S) for p in its.sds], axis=1)
        out |= {f"{kind}_{g}": p.sample(rng, S) for kind, p in its.more.items()}
        if its.lkj is not None and own.has_own:
            law = own.correlation  # type: ignore[attr-defined]
            out[f"cor_{g}"] = law.drawn_lkj(rng, S, its.lkj.eta)
        elif its.lkj is not None:
            L = np.stack([its.lkj.sample(rng, len(its.sds)) for _ in range(S)])
            out[f"cor_{g}"] = _pairs(L @ np.swapaxes(L, 1, 2))
    known = _known(fit)
    drawn = resolved.drawn_dispersion(fit.family, rng, S)
    if "beta" in out and len(drawn) and resolved.level.any():
        drawn = drawn + np.outer(fit.family.moved, out["beta"] @ resolved.level)
    named = zip(fit.family.phi_names, drawn, strict=True)
    out |= _joined(fit, {name: x for name, x in named if name not in known})
    return {name: x[None] for name, x in out.items()}


def _constants(fit: FittedPosterior, names: _Names) -> dict[str, np.ndarray]:
    d = fit.design
    out: dict[str, np.ndarray] = {"X": d.X} if d.p else {}
    for term in d.terms:
        if term.known is None:
            out[f"{names.labels[term.label]}_idx"] = term.codes.astype(np.int64)
    extra = {"offset": d.offset, "weights": d.weights, "trials": d.trials}
    out |= {name: np.array(value) for name, value in _known(fit).items()}
    return out | {k: np.asarray(v) for k, v in extra.items() if v is not None}


def _stats(fit: FittedPosterior) -> dict[str, np.ndarray]:
    p = fit.posterior
    if p.sample_stats:
        return p.sample_stats
    if p.log_posterior is None:
        return {}
    return {"lp": _chained(fit, p.log_posterior)}


def _attributes(fit: FittedPosterior, thin: np.ndarray) -> dict[str, Any]:
    """Text and numbers alone: anything else does not go into a netCDF file."""
    p = fit.posterior
    seconds = fit.diagnostics.get("seconds", {})
    facts: dict[str, Any] = {
        "inference_library": "jaxglmm",
        "inference_library_version": __version__,
        "inference_method": p.method,
        "formula": fit.formula,
        "family": fit.family_name,
        "link": fit.link_name,
        "dtype": "float64",
        "device": jax.default_backend(),
        "sampling_time": float(sum(seconds.values())),
        "draws_of_log_likelihood": int(thin.size),
    }
    if fit.family.family_kind in ("ordinal", "nominal"):
        facts["categories"] = ", ".join(map(str, fit.design.response_levels))
    for name in ("khat", "ess", "log_evidence", "log_evidence_error", "elbo"):
        value = getattr(p, name)
        if value is not None and np.isfinite(value):
            facts[name] = float(value)
    return facts


def _build(
    data: dict[str, Mapping[str, np.ndarray]], names: _Names, attributes: dict[str, Any]
) -> Any:
    import arviz as az

    used = {d for group in data.values() for v in group for d in names.dims.get(v, [])}
    coords = {k: v for k, v in names.coords.items() if k in used}
    kept = {v for group in data.values() for v in group}
    dims = {k: v for k, v in names.dims.items() if k in kept}
    make: Any = az.from_dict
    if "posterior" in inspect.signature(make).parameters:  # arviz before 1
        made = make(**data, coords=coords, dims=dims, attrs=attributes)
        if "posterior" in data:
            made.posterior.attrs.update(attributes)
        return made
    where = {"/": attributes}
    if "posterior" in data:
        where["posterior"] = attributes
    return make(data, coords=coords, dims=dims, attrs=where)
