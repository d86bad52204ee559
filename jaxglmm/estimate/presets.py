"""What users write as ``method=``: one line each.

A preset is two choices: what is integrated out, and how the rest is estimated.
"""

from __future__ import annotations

from typing import Literal

from jaxglmm._errors import ModelError
from jaxglmm.estimate.laplace import LaplaceMarginal
from jaxglmm.estimate.maximise import Maximise


def ML() -> Maximise:
    """Maximum likelihood: u integrated out exactly, the rest maximised.

    >>> import jaxglmm as jg
    >>> sleep = jg.datasets.load("sleepstudy")
    >>> fit = jg.lmm("Reaction ~ Days + (Days | Subject)", sleep, method=jg.ML())
    >>> round(fit.criterion, 4)
    1751.9393
    """
    return Maximise(reml=False)


def REML() -> Maximise:
    """Restricted maximum likelihood: u and beta integrated out, the rest maximised.

    >>> import jaxglmm as jg
    >>> sleep = jg.datasets.load("sleepstudy")
    >>> fit = jg.lmm("Reaction ~ Days + (Days | Subject)", sleep, method=jg.REML())
    >>> round(fit.criterion, 4)
    1743.6283
    """
    return Maximise(reml=True)


def Laplace(hessian: Literal["observed", "expected"] = "observed") -> LaplaceMarginal:
    """Maximum likelihood: u integrated out by Laplace, the rest maximised.

    Args:
        hessian: information of the rows in log|M|: "observed" (Laplace's
            approximation, as glmmTMB) or "expected" (Fisher's, as lme4). The same for
            canonical links.

    >>> import jaxglmm as jg
    >>> cbpp = jg.datasets.load("cbpp")
    >>> formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    >>> probit = jg.Binomial(link="probit")
    >>> lme4 = jg.Laplace(hessian="expected")
    >>> round(jg.glmm(formula, cbpp, family=probit, method=lme4).criterion, 3)
    185.242
    """
    if hessian not in ("observed", "expected"):
        raise ModelError(f"hessian={hessian!r} is not 'observed' or 'expected'")
    return LaplaceMarginal(hessian)


def AGQ(nodes: int = 11) -> LaplaceMarginal:
    """Maximum likelihood: u integrated out by adaptive Gauss-Hermite quadrature.

    Args:
        nodes: a dimension; 1 is Laplace's approximation.

    >>> import jaxglmm as jg
    >>> cbpp = jg.datasets.load("cbpp")
    >>> formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    >>> round(jg.glmm(formula, cbpp, method=jg.AGQ(25)).criterion, 4)
    183.9667
    """
    if isinstance(nodes, bool) or not isinstance(nodes, int) or not 1 <= nodes <= 100:
        raise ModelError(f"nodes={nodes!r} must be a whole number from 1 to 100")
    return LaplaceMarginal("observed", nodes)
