"""The problems, as data: what is fitted, how fast it should be, and who else can."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from benchmarks import batches, data, doors, posteriors


@dataclass(frozen=True)
class Problem:
    """One line of the table.

    work: what is timed, a name in ``engines.py``: ``fit`` is the whole call from
        formula and frame, ``refit`` and ``alone`` the fit alone, ``fresh`` a process
        from import to summary
    family, nodes, weights: of generalised models; nodes of quadrature, column name
    fixed, random: the model once more for engines without formulas
    goal: seconds that the warm call may take; goal_gpu: on an H200
    fits: models that it fits, where these are many
    engines: who is asked; ``slow`` only with ``--slow``
    """

    name: str
    title: str
    goal: float
    data: Callable[[], pd.DataFrame]
    formula: str
    work: str = "fit"
    reml: bool = True
    response: str = "y"
    fixed: tuple[str, ...] = ()
    random: tuple[tuple[str, tuple[str, ...]], ...] = ()
    engines: tuple[str, ...] = ("jaxglmm",)
    slow: tuple[str, ...] = ()
    note: str = ""
    family: str = "gaussian"
    nodes: int = 1
    weights: str | None = None
    fits: int = 0
    goal_gpu: float | None = None


CBPP = {
    "data": data.cbpp,
    "formula": "proportion ~ period + (1 | herd)",
    "response": "proportion",
    "weights": "size",
    "family": "binomial",
    "reml": False,
}
OHIO = {
    "data": data.ohio,
    "formula": "resp ~ age * smoke + (1 | id)",
    "response": "resp",
    "family": "binomial",
    "reml": False,
}
SLEEP = {
    "data": data.sleepstudy,
    "formula": "Reaction ~ Days + (Days | Subject)",
    "response": "Reaction",
    "fixed": ("Days",),
    "random": (("Subject", ("1", "Days")),),
}
SHEET = {
    "data": doors.sheet,
    "formula": "y ~ x1 + x2 + (1 | g)",
    "fixed": ("x1", "x2"),
    "random": (("g", ("1",)),),
    "reml": False,
}
SLOPES = tuple(f"x{k}" for k in range(1, 8))
PLUS = " + ".join(SLOPES)

PROBLEMS = (
    Problem(
        name="sleepstudy",
        title="sleepstudy (Days | Subject), whole call with Satterthwaite",
        goal=0.011,
        engines=("jaxglmm", "glmm", "mixedlm", "pystatistics", "statsmodels", "lme4"),
        note="goal: lme4's lmer, 11 ms",
        **SLEEP,
    ),
    Problem(
        name="refit",
        title="sleepstudy, the fit alone (refit)",
        goal=0.0002,
        work="refit",
        engines=("jaxglmm", "glmm", "mixedlm", "lme4"),
        note="glmm has no refit: its whole call without Satterthwaite",
        **SLEEP,
    ),
    Problem(
        name="fresh",
        title="fresh process, import to summary, no disk cache",
        goal=5.0,
        work="fresh",
        engines=("jaxglmm", "lme4"),
        **SLEEP,
    ),
    Problem(
        name="fresh-cached",
        title="fresh process, import to summary, disk cache",
        goal=1.8,
        work="fresh_cached",
        **SLEEP,
    ),
    Problem(
        name="insteval",
        title="InstEval, 73,421 rows, three crossed factors, ML",
        goal=0.6,
        data=data.insteval,
        formula="y ~ service + (1 | s) + (1 | d) + (1 | dept)",
        reml=False,
        fixed=("service",),
        random=(("s", ("1",)), ("d", ("1",)), ("dept", ("1",))),
        engines=("jaxglmm", "glmm", "gpboost", "lme4"),
        slow=("mixedlm", "pystatistics"),
    ),
    Problem(
        name="many-groups",
        title="500,264 rows, 125,066 groups, (x1 | g)",
        goal=0.5,
        data=data.many_groups,
        formula="y ~ x1 + x2 + (x1 | g)",
        fixed=("x1", "x2"),
        random=(("g", ("1", "x1")),),
        engines=("jaxglmm", "glmm", "lme4"),
        slow=("mixedlm", "pystatistics", "statsmodels"),
    ),
    Problem(
        name="crossed",
        title="100,000 rows, 10,000 x 1,000 crossed, ML",
        goal=0.3,
        data=data.crossed,
        formula="y ~ x + (1 | u) + (1 | i)",
        reml=False,
        fixed=("x",),
        random=(("u", ("1",)), ("i", ("1",))),
        engines=("jaxglmm", "glmm", "gpboost", "lme4"),
        slow=("mixedlm", "pystatistics"),
    ),
    Problem(
        name="many-slopes",
        title="30,000 rows, 7 slopes, 36 variance parameters",
        goal=0.1,
        data=data.many_slopes,
        formula=f"y ~ {PLUS} + ({PLUS} | g)",
        fixed=SLOPES,
        random=(("g", ("1", *SLOPES)),),
        engines=("jaxglmm", "glmm"),
        slow=("lme4", "mixedlm"),
    ),
    Problem(
        name="million",
        title="1,000,000 rows through formula and structure",
        goal=1.0,
        data=data.million,
        formula="y ~ x1 + x2 + f + (x1 | g)",
        work="build",
        note="goal: memory below 4 times the data",
    ),
    Problem(
        name="million-crossed",
        title="the same with a second, crossed factor",
        goal=1.0,
        data=data.million,
        formula="y ~ x1 + x2 + f + (x1 | g) + (1 | h)",
        work="build",
    ),
    Problem(
        name="bootstrap",
        title="parametric bootstrap, 10,000 refits of sleepstudy",
        goal=0.2,
        work="bootstrap",
        engines=("jaxglmm", "glmm"),
        slow=("lme4",),
        note="goal: 50,000 fits/s",
        **SLEEP,
    ),
    Problem(
        name="verbagg",
        title="VerbAgg, 7,584 answers, persons by items, Laplace",
        goal=0.03,
        data=data.verbagg,
        formula="r2 ~ Anger + Gender + btype + situ + (1 | id) + (1 | item)",
        response="r2",
        family="binomial",
        reml=False,
        fixed=("Anger", "Gender", "btype", "situ"),
        random=(("id", ("1",)), ("item", ("1",))),
        engines=("jaxglmm", "glmm", "gpboost"),
        slow=("lme4",),
    ),
    Problem(
        name="cbpp",
        title="cbpp, Laplace, the fit alone",
        goal=0.00025,
        work="alone",
        engines=("jaxglmm", "glmm", "lme4"),
        note="peers: the whole call",
        **CBPP,
    ),
    Problem(
        name="cbpp-call",
        title="cbpp, Laplace, whole call with standard errors",
        goal=0.058,
        engines=("jaxglmm", "glmm", "lme4"),
        note="goal: lme4's glmer, 58 ms",
        **CBPP,
    ),
    Problem(
        name="ohio",
        title="ohio, 537 children, Laplace, the fit alone",
        goal=0.002,
        work="alone",
        engines=("jaxglmm", "glmm", "lme4"),
        note="peers: the whole call",
        **OHIO,
    ),
    Problem(
        name="ohio-agq",
        title="ohio, quadrature with 25 nodes, the fit alone",
        goal=0.008,
        work="alone",
        nodes=25,
        engines=("jaxglmm", "glmm", "lme4"),
        note="peers: the whole call; lme4 leaves out a constant",
        **OHIO,
    ),
    Problem(
        name="crossed-binary",
        title="Bernoulli, 100,000 rows, 10,000 x 1,000 crossed, Laplace",
        goal=0.8,
        data=data.crossed_binary,
        formula="y ~ x + (1 | u) + (1 | i)",
        family="binomial",
        reml=False,
        fixed=("x",),
        random=(("u", ("1",)), ("i", ("1",))),
        slow=("glmm", "gpboost", "lme4"),
    ),
    Problem(
        name="million-counts",
        title="Poisson, 1,000,000 rows, 50,000 groups, (x | g), Laplace",
        goal=1.6,
        data=data.million_counts,
        formula="y ~ x + (x | g)",
        family="poisson",
        reml=False,
        slow=("glmm",),
        note="goal: memory below 6 times the data",
    ),
    Problem(
        name="fresh-glmm",
        title="fresh process, import to summary of cbpp, no disk cache",
        goal=8.0,
        work="fresh",
        engines=("jaxglmm", "lme4"),
        **CBPP,
    ),
    Problem(
        name="fresh-glmm-c",
        title="fresh process, import to summary of cbpp, disk cache",
        goal=2.5,
        work="fresh_cached",
        **CBPP,
    ),
    Problem(
        name="batch",
        title="10,000 x sleepstudy (Days | Subject), REML, whole call",
        goal=0.1,
        data=data.sleepstudy,
        formula="Reaction ~ Days + (Days | Subject)",
        response="Reaction",
        work="many",
        fits=10_000,
        engines=("jaxglmm", "glmm", "lme4"),
        note="goal: 100,000 fits/s; jaxglmm with Satterthwaite, peers without",
    ),
    Problem(
        name="batch-compiled",
        title="the same, the compiled part",
        goal=0.05,
        goal_gpu=0.002,
        data=data.sleepstudy,
        formula="Reaction ~ Days + (Days | Subject)",
        work="compiled",
        fits=10_000,
        note="goal: 200,000 fits/s",
    ),
    Problem(
        name="batch-ragged",
        title="10,000 experiments, 5 to 30 subjects, 4 to 20 rows each, whole call",
        goal=0.5,
        data=batches.experiments,
        formula="y ~ day + (day | subject)",
        work="many",
        fits=10_000,
        engines=("jaxglmm", "glmm"),
        note="goal: 20,000 fits/s",
    ),
    Problem(
        name="batch-ragged-c",
        title="the same, the compiled part",
        goal=0.5,
        goal_gpu=0.01,
        data=batches.experiments,
        formula="y ~ day + (day | subject)",
        work="compiled",
        fits=10_000,
    ),
    Problem(
        name="batch-cbpp",
        title="10,000 x cbpp, binomial, Laplace, whole call with standard errors",
        goal=0.2,
        data=data.cbpp,
        formula="y ~ period + (1 | herd)",
        family="binomial",
        work="many",
        fits=10_000,
        engines=("jaxglmm", "glmm", "lme4"),
        note="goal: 50,000 fits/s",
    ),
    Problem(
        name="batch-cbpp-c",
        title="the same, the compiled part",
        goal=0.2,
        goal_gpu=0.01,
        data=data.cbpp,
        formula="y ~ period + (1 | herd)",
        family="binomial",
        work="compiled",
        fits=10_000,
    ),
    Problem(
        name="batch-genes",
        title="20,000 genes x 200 samples x 40 donors, Satterthwaite, whole call",
        goal=1.0,
        goal_gpu=0.1,
        data=batches.samples,
        formula="y ~ dose + batch + (1 | donor)",
        work="many",
        fits=20_000,
        engines=("jaxglmm", "glmm"),
    ),
    Problem(
        name="batch-cells",
        title="2,000 genes x 6,000 cells x 30 donors, negative binomial, offset",
        goal=60.0,
        goal_gpu=2.0,
        data=batches.cells,
        formula="y ~ treated + (1 | donor)",
        family="nbinom2",
        work="many",
        fits=2_000,
    ),
    Problem(
        name="batch-million",
        title="1,000,000 x sleepstudy, responses and results on disk",
        goal=10.0,
        data=data.sleepstudy,
        formula="Reaction ~ Days + (Days | Subject)",
        work="many",
        fits=1_000_000,
        note="goal: memory below 4 GiB, rate within 10 % of the first line",
    ),
    Problem(
        name="sheet-poisson",
        title="GLMM_POISSON, a worksheet of 5,000 rows, 200 groups",
        goal=0.2,
        work="sheet",
        family="poisson",
        response="count",
        engines=("jaxglmm", "statsmodels"),
        note="statsmodels: mean field with the groups in it, no table",
        **SHEET,
    ),
    Problem(
        name="sheet-slopes",
        title="the same with random slopes",
        goal=0.2,
        work="sheet",
        family="poisson",
        response="count",
        **{**SHEET, "random": (("g", ("1", "x1")),)},
    ),
    Problem(
        name="sheet-binomial",
        title="GLMM_BINOMIAL, 5,000 rows",
        goal=0.2,
        work="sheet",
        family="binomial",
        response="binary",
        engines=("jaxglmm", "statsmodels"),
        **SHEET,
    ),
    Problem(
        name="sheet-negbin",
        title="GLMM_NEGBIN, 5,000 rows",
        goal=0.2,
        work="sheet",
        family="nbinom2",
        response="clumped",
        **SHEET,
    ),
    Problem(
        name="sheet-lmm",
        title="LMM, 5,000 rows",
        goal=0.2,
        work="sheet",
        response="number",
        **SHEET,
    ),
    Problem(
        name="sheet-served",
        title="GLMM_POISSON, 5,000 rows, asked by HTTP",
        goal=0.2,
        work="served",
        family="poisson",
        response="count",
        **SHEET,
    ),
    Problem(
        name="server-crowd",
        title="1,000 requests by 100 clients at once, six rows each, Laplace",
        goal=20.0,
        data=doors.small_sheet,
        formula="count ~ x1 + (1 | g)",
        work="crowd",
        family="poisson",
        response="count",
        fixed=("x1",),
        random=(("g", ("1",)),),
        note="goal: none is lost",
    ),
    Problem(
        name="mixedlm",
        title="sleepstudy by compat's MixedLM, formula to standard errors",
        goal=0.05,
        work="compat",
        engines=("jaxglmm", "statsmodels"),
        **SLEEP,
    ),
    Problem(
        name="mixedlm-pairs",
        title="125,066 groups of two by compat's MixedLM",
        goal=1.0,
        data=doors.pairs,
        formula="y ~ x + (1 | g)",
        work="compat",
        fixed=("x",),
        random=(("g", ("1",)),),
        slow=("statsmodels",),
        note="statsmodels: 41 minutes, as a user reported",
    ),
    *(Problem(**line) for line in posteriors.LINES),
)
BY_NAME = {problem.name: problem for problem in PROBLEMS}
