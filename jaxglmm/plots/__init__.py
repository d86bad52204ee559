"""Figures of fits; each returns Matplotlib axes. Usually reached as ``fit.plot``."""

from jaxglmm.plots.caterpillar import ranef as ranef
from jaxglmm.plots.check import check as check
from jaxglmm.plots.influence import influence as influence
from jaxglmm.plots.intervals import intervals as intervals
from jaxglmm.plots.items import item_curves as item_curves
from jaxglmm.plots.marginals import marginals as marginals
from jaxglmm.plots.means import means as means
from jaxglmm.plots.power import power_curve as power_curve
from jaxglmm.plots.profiles import profile as profile
from jaxglmm.plots.quantiles import qq as qq
from jaxglmm.plots.residual import residuals as residuals
from jaxglmm.plots.simulated import simulated_residuals as simulated_residuals
from jaxglmm.plots.smooths import smooths as smooths
from jaxglmm.plots.volcano import p_values as p_values
from jaxglmm.plots.volcano import volcano as volcano
from jaxglmm.plots.wright import wright_map as wright_map
