"""What users write as ``method=``: one line each.

A preset is two choices: what is integrated out, and how the rest is estimated.
"""

from __future__ import annotations

from typing import Literal

from jaxglmm import _arguments
from jaxglmm._errors import ModelError
from jaxglmm.estimate.maximise import Maximise
from jaxglmm.integrate.base import AbstractMarginal
from jaxglmm.integrate.marginals import integrator
from jaxglmm.integrate.quadrature import AdaptiveQuadrature


def ML(probes: int | None = None) -> Maximise:
    """Maximum likelihood: u integrated out exactly, the rest maximised.

    Args:
        probes: of crossed factors: log-determinants and their derivatives by this many
            fixed random vectors (64 are a good number), with a Monte Carlo error that
            the summary says; 0: exactly, by a dense matrix in place. None: as the size
            of the factors asks.

    Raises:
        ModelError: not a number from 0 to 10,000.

    >>> import jaxglmm as jg
    >>> sleep = jg.datasets.load("sleepstudy")
    >>> fit = jg.lmm("Reaction ~ Days + (Days | Subject)", sleep, method=jg.ML())
    >>> round(fit.criterion, 4)
    1751.9393
    """
    return Maximise(reml=False, probes=_probes(probes))


def REML(probes: int | None = None) -> Maximise:
    """Restricted maximum likelihood: u and beta integrated out, the rest maximised.

    Args:
        probes: of crossed factors: log-determinants and their derivatives by this many
            fixed random vectors (64 are a good number), with a Monte Carlo error that
            the summary says; 0: exactly, by a dense matrix in place. None: as the size
            of the factors asks.

    Raises:
        ModelError: not a number from 0 to 10,000.

    >>> import jaxglmm as jg
    >>> sleep = jg.datasets.load("sleepstudy")
    >>> fit = jg.lmm("Reaction ~ Days + (Days | Subject)", sleep, method=jg.REML())
    >>> round(fit.criterion, 4)
    1743.6283
    """
    return Maximise(reml=True, probes=_probes(probes))


def _probes(probes: int | None) -> int | None:
    return None if probes is None else _arguments.whole("probes", probes, 0, 10_000)


def Laplace(
    hessian: Literal["observed", "expected"] = "observed",
    order: int = 1,
    probes: int | None = None,
) -> AbstractMarginal:
    """Maximum likelihood: u integrated out by Laplace, the rest maximised.

    Args:
        hessian: information of the rows in log|M|: "observed" (Laplace's
            approximation, as glmmTMB) or "expected" (Fisher's, as lme4). The same for
            canonical links.
        order: 2 adds the next terms of the expansion, for one random intercept or
            slope (Shun and McCullagh 1995): most of what quadrature would correct.
        probes: of crossed factors: log|M| and its derivatives by this many fixed random
            vectors (64 are a good number), with a Monte Carlo error that the summary
            says; 0: exactly, by a dense matrix. None: as the size of the factors asks.

    Raises:
        ModelError: for other values, and for probes with ``order=2`` or the expected
            information.

    >>> import jaxglmm as jg
    >>> cbpp = jg.datasets.load("cbpp")
    >>> formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    >>> probit = jg.Binomial(link="probit")
    >>> lme4 = jg.Laplace(hessian="expected")
    >>> round(jg.glmm(formula, cbpp, family=probit, method=lme4).criterion, 3)
    185.242
    """
    if not _arguments.is_among(hessian, ("observed", "expected")):
        shown = _arguments.shown(hessian)
        raise ModelError(f"hessian={shown} is not 'observed' or 'expected'")
    terms = _arguments.whole("order", order, 1, 2)
    if terms > 1 and probes is not None:
        raise ModelError(
            f"probes={probes} is for crossed factors, which order=2 does not take; "
            "leave one of the two out"
        )
    if probes and hessian != "observed":
        raise ModelError(
            f"probes={probes} take the observed information, hessian='observed'"
        )
    return integrator(hessian, order=terms, probes=_probes(probes))


def AGQ(nodes: int | Literal["auto"] = 11) -> AbstractMarginal:
    """Maximum likelihood: u integrated out by adaptive Gauss-Hermite quadrature.

    One grouping factor, up to three random effects a level.

    Args:
        nodes: a dimension; 1 is Laplace's approximation. "auto" doubles them until -2
            log-likelihood moves by less than 0.001.

    Raises:
        ModelError: for other values.

    >>> import jaxglmm as jg
    >>> cbpp = jg.datasets.load("cbpp")
    >>> formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    >>> round(jg.glmm(formula, cbpp, method=jg.AGQ(25)).criterion, 4)
    183.9667
    """
    if isinstance(nodes, str) and nodes == "auto":
        return AdaptiveQuadrature(0)
    meaning = "nodes a dimension, or 'auto'"
    number = _arguments.whole("nodes", nodes, 1, _arguments.NODES, meaning=meaning)
    return integrator(nodes=number)
