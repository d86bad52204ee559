"""What users write as ``method=``: one line each.

A preset is two choices: what is integrated out, and how the rest is estimated.
"""

from __future__ import annotations

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
