"""The fixed effects of a fitted model: estimates, errors, degrees of freedom, tests."""

from __future__ import annotations

import copy
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import numpy as np

from jaxglmm import _arguments
from jaxglmm._errors import NotApplicableError
from jaxglmm._hints import Hinted
from jaxglmm.fitting import coefficients as _coefficients
from jaxglmm.fitting.estimates import Estimates, Unread
from jaxglmm.formula.design import Design
from jaxglmm.runtime import levels

if TYPE_CHECKING:
    import pandas as pd

    from jaxglmm.fitting.clusters import Clusters
    from jaxglmm.fitting.degrees_of_freedom import KenwardRoger, Satterthwaite

DDF = ("satterthwaite", "kenward-roger", "residual")


class Robust(NamedTuple):
    """A covariance of the fixed effects from residuals, and the clusters it sums."""

    kind: str
    clusters: Clusters


class FixedEffects(Hinted):
    """A design, what was estimated for it, and what that says of its coefficients.

    Args:
        design: names and arrays of the model.
        estimates: what the fit found, or what makes them when they are read.
        engine: whatever computes for this design again (refit, profile, Satterthwaite);
            rebuilt from the design when it is first needed.
        diagnostics: facts about the computation (seconds, steps, system, ...).
        compute_satterthwaite: False for n - p degrees of freedom, which cost nothing.
    """

    is_linear: ClassVar[bool] = True  # exact likelihood, t-tests, a residual variance

    def __init__(
        self,
        design: Design,
        estimates: Estimates | Unread,
        engine: object = None,
        diagnostics: dict | None = None,
        *,
        compute_satterthwaite: bool = True,
    ):
        self.design = design
        self._estimates = estimates
        self.diagnostics = {} if diagnostics is None else diagnostics
        self._engine = engine
        self._ddf = "satterthwaite" if compute_satterthwaite else "residual"
        self._robust: Robust | None = None

    @property
    def estimates(self) -> Estimates:
        """What the fit found, in the user's coordinates."""
        if isinstance(self._estimates, Unread):
            self._estimates = self._estimates.made()
        return self._estimates

    @property
    def engine(self) -> Any:
        """The engine that computes for this design, rebuilt where it was dropped."""
        if self._engine is not None and levels.is_left(self._engine):
            self._forget()
        if self._engine is None:
            self._engine = self._rebuilt()
        return self._engine

    def _forget(self) -> None:
        """Leave behind what other processes hold a part of."""
        self._engine = None

    def _rebuilt(self) -> Any:
        from jaxglmm.fitting.large_crossed import rebuild

        return rebuild(self.design, bool(self.estimates.reml))

    @property
    def plan(self) -> Any:
        """How large crossed factors were fitted, and what that took; else None."""
        from jaxglmm.fitting.large_plan import LargePlan

        facts = self.diagnostics.get("large")
        return None if facts is None else LargePlan(**facts)

    @property
    def coefficients(self) -> np.ndarray:
        """Fixed effects, (p,)."""
        return np.asarray(self.estimates.beta)

    @property
    def coefficient_names(self) -> tuple[str, ...]:
        """Names of the fixed effects."""
        return tuple(self.design.x_names)

    @property
    def fixef(self) -> dict[str, float]:
        """Name -> fixed effect."""
        return dict(zip(self.design.x_names, self.coefficients.tolist(), strict=True))

    @cached_property
    def se(self) -> np.ndarray:
        """Standard errors of the fixed effects, (p,)."""
        return self._errors(self.coefficient_covariance())

    def _errors(self, vcov: np.ndarray) -> np.ndarray:
        """Roots of the diagonal; of what is held at a value there is none."""
        se = _coefficients.standard_errors(vcov)
        if not self.design.fixed:
            return se
        held = [name in self.design.fixed for name in self.design.x_names]
        return np.where(held, np.nan, se)

    @cached_property
    def vcov(self) -> pd.DataFrame:
        """Covariance of the fixed effects, (p, p)."""
        import pandas as pd

        names = list(self.design.x_names)
        return pd.DataFrame(self.coefficient_covariance(), index=names, columns=names)

    @property
    def coef(self) -> np.ndarray:
        """``coefficients``; ``coef_by(factor)`` has those of every level."""
        return self.coefficients

    @property
    def standard_errors(self) -> np.ndarray:
        """``se``."""
        return self.se

    @property
    def z_values(self) -> np.ndarray | None:
        """None: a Gaussian model has t values, a generalised one z values."""
        return None

    @property
    def conf_int(self) -> np.ndarray:
        """Wald limits of the fixed effects at ``conf_level``, (p, 2)."""
        level = self.conf_level
        return _coefficients.wald(
            self.coefficients, self.se, self.denominator_df, level
        )

    @property
    def conf_level(self) -> float:
        """Coverage of ``conf_int``: 0.95, or what the fit was asked for."""
        return self.diagnostics.get("conf_level", 0.95)

    @property
    def t_values(self) -> np.ndarray | None:
        """Estimates over their standard errors, (p,)."""
        return self.coefficients / self.se

    @cached_property
    def df_satterthwaite(self) -> np.ndarray | None:
        """Degrees of freedom of the t-tests, (p,): Satterthwaite's, or n - p."""
        return self.denominator_df

    @cached_property
    def p_values(self) -> np.ndarray | None:
        """Two-sided p-values of the t-tests, (p,)."""
        t = self.coefficients / self.se
        return _coefficients.t_p_values(t, self.denominator_df)

    def coefficient_table(self, ddf: str | None = None) -> pd.DataFrame:
        """Estimate, standard error, df, t and p, one row a fixed effect."""
        ddf = self.checked_ddf(ddf)
        se = self._errors(self.coefficient_covariance(ddf))
        df = self._degrees_of_freedom(ddf)
        return _coefficients.table(self.design.x_names, self.coefficients, se, df)

    def coefficient_covariance(self, ddf: str | None = None) -> np.ndarray:
        """(p, p) covariance of the fixed effects; adjusted for "kenward-roger"."""
        if self.checked_ddf(ddf) == "kenward-roger":
            return self.kenward_roger_of("kenward-roger").adjusted
        return self._given_covariance

    @cached_property
    def _given_covariance(self) -> np.ndarray:
        """(p, p) by the model, or by the residuals of clusters."""
        if self._robust is not None:
            return self.empirical_parts.covariance
        vcov = self.estimates.vcov
        assert vcov is not None
        return np.asarray(vcov)

    def with_vcov(self, vcov: str, cluster: Any = None) -> Self:
        """The same fit with another covariance of its fixed effects.

        Standard errors, tests, intervals, means and contrasts of what is returned go by
        it, with degrees of freedom after Bell and McCaffrey (2002); tests of several
        coefficients are Hotelling's T-squared of Tipton and Pustejovsky (2015),
        clubSandwich's HTZ, and NaN where the clusters are too few for them. The model
        is not fitted again: random effects, variances and likelihood stay.

        Args:
            vcov: "asymptotic" (the model's own), or from residuals of clusters: "CR0",
                "CR1" (times m/(m - 1) for m clusters), "CR1S" (Stata's factor), "CR1p"
                (m/(m - p)), "CR2" (unbiased under the model), "CR3" (like a jackknife).
            cluster: rows of different clusters are independent: a grouping factor, a
                variable of the model, or labels, one a row of the data
                (``data["school"]``); by default the grouping factor that contains the
                others.

        Raises:
            NotApplicableError: clusters that share random effects, or fewer than two.
            DataError: labels that are missing or too few.

        Example:
            >>> import jaxglmm as jg
            >>> data = jg.datasets.load("sleepstudy")
            >>> fit = jg.lmm("Reaction ~ Days + (1 | Subject)", data)
            >>> fit.se.round(2).tolist(), fit.with_vcov("CR2").se.round(2).tolist()
            ([9.75, 0.8], [6.82, 1.55])
        """
        robust = self.vcov_kinds()
        if not robust and not _arguments.is_among(vcov, ("asymptotic",)):
            if self.reml and not self.is_linear:
                raise NotApplicableError(
                    f"vcov={_arguments.shown(vcov)}: robust covariances of generalised "
                    "models are of scores by maximum likelihood: fit with reml=False"
                )
            raise NotApplicableError(
                f"vcov={_arguments.shown(vcov)}: robust covariances belong to fits by "
                "maximum likelihood or REML; a posterior's spread is its draws'"
            )
        kind = _arguments.choice("vcov", vcov, ("asymptotic", *robust))
        out = copy.copy(self)
        out._engine, out._robust = self._engine, None
        if kind != "asymptotic":
            from jaxglmm.fitting.clusters import clusters_of

            out._robust = Robust(kind, clusters_of(self.design, cluster))
            out._fitting_ddf(out._ddf)
        return out

    def vcov_kinds(self) -> tuple[str, ...]:
        """The robust covariances that this kind of fit has."""
        from jaxglmm.fitting.empirical import KINDS

        return KINDS

    def robust_facts(self) -> dict[str, Any] | None:
        """The robust covariance as a file keeps it; None of the model's own."""
        if self._robust is None:
            return None
        kind, clusters = self._robust
        return {"kind": kind, "name": clusters.name, "codes": clusters.codes}

    def take_robust(self, facts: dict[str, Any] | None) -> None:
        """The covariance that ``robust_facts`` describes."""
        if facts is not None:
            from jaxglmm.fitting.clusters import Clusters

            clusters = Clusters(facts["name"], np.asarray(facts["codes"]))
            self._robust = Robust(facts["kind"], clusters)

    @property
    def vcov_type(self) -> str:
        """How the covariance of the fixed effects is found: "asymptotic", "CR2", ..."""
        return "asymptotic" if self._robust is None else self._robust.kind

    @property
    def cluster(self) -> str | None:
        """Name of the clusters of a robust covariance; None of the model's own."""
        return None if self._robust is None else self._robust.clusters.name

    @cached_property
    def empirical_parts(self) -> Any:
        """The covariance by the residuals of clusters, and what its tests need."""
        from jaxglmm.fitting.empirical import Empirical

        assert self._robust is not None
        return Empirical(self, self._robust.kind, self._robust.clusters)

    @property
    def ddf(self) -> str:
        """How degrees of freedom are counted: "satterthwaite" or "residual"."""
        return self._ddf

    def checked_ddf(self, ddf: str | None) -> str:
        """How degrees of freedom are to be counted; as fitted where None."""
        ddf = self._ddf if ddf is None else ddf
        if isinstance(ddf, str):  # lmerTest writes "Kenward-Roger"
            ddf = ddf.lower()
        return self._fitting_ddf(_arguments.choice("ddf", ddf, DDF))

    def _fitting_ddf(self, ddf: str) -> str:
        """Refuses what adjusts the model's own covariance where it is not used."""
        if self._robust is not None and ddf.startswith("kenward-roger"):
            raise NotApplicableError(
                f"ddf={ddf!r} adjusts the covariance of the model, and this fit has "
                f"vcov={self.vcov_type!r}: use ddf='satterthwaite', or with_vcov("
                "'asymptotic')"
            )
        return ddf

    @property
    def denominator_df(self) -> np.ndarray:
        """Degrees of freedom of Wald tests and intervals, (p,); infinite for z."""
        return self._degrees_of_freedom(self._ddf)

    def _degrees_of_freedom(self, ddf: str) -> np.ndarray:
        if ddf == "residual":
            return np.full(self.design.p, float(self.design.n_counted - self.design.p))
        if ddf == "kenward-roger":
            return self.kenward_roger_parts.of_coefficients()
        if self.design.p == 0:
            return np.zeros(0)
        return self.satterthwaite_parts.of_coefficients()

    def plain_df(self, ddf: str, L: np.ndarray) -> float:
        """Degrees of freedom of a test of L beta that no variance parameter moves."""
        if ddf == "asymptotic":
            return np.inf
        return float(self.design.n_counted - self.design.p)

    def kenward_roger_of(self, ddf: str) -> KenwardRoger:
        """What a test by one of Kenward and Roger's methods is made of."""
        return self.kenward_roger_parts

    @cached_property
    def satterthwaite_parts(self) -> Satterthwaite:
        """What Satterthwaite's degrees of freedom are made of."""
        if self._robust is not None:
            return self.empirical_parts
        from jaxglmm.fitting.degrees_of_freedom import satterthwaite_parts

        return satterthwaite_parts(self.engine, self.estimates)

    @cached_property
    def kenward_roger_parts(self) -> KenwardRoger:
        """Kenward and Roger's covariance, and what their tests are made of."""
        from jaxglmm.fitting.degrees_of_freedom import kenward_roger_parts

        return kenward_roger_parts(self.engine, self.estimates)
