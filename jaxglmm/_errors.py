"""What can go wrong, by name: a small tree of exceptions and the named warnings.

An exception is raised for what can be known before anything is compiled (a column that
is not there, a response outside its support). What depends on the values of a fit
(singular, not converged) is a status inside and one named warning outside.
"""


class JaxGLMMError(Exception):
    """Base of every exception that jaxglmm raises on purpose.

    status: the result code (``_status``) of a data set among many that this befalls;
    None where nothing more than the kind of exception is known.
    """

    def __init__(self, *args: object, status: int | None = None):
        super().__init__(*args)
        self.status = status


class FormulaError(JaxGLMMError, ValueError):
    """The formula cannot be read, or asks for something that does not exist."""


class DataError(JaxGLMMError, ValueError):
    """The data cannot be used: missing columns, wrong lengths, not finite."""


class ModelError(JaxGLMMError, ValueError):
    """The parts are fine one by one but do not make a model (p > n, one level, ...)."""


class UnboundedLikelihoodError(ModelError):
    """The likelihood grows without end along a parameter; a prior would bound it."""


class ArgumentError(JaxGLMMError, TypeError):
    """An argument that is not there, or of a kind that it cannot be."""


class ComparisonError(JaxGLMMError, ValueError):
    """These fits cannot be compared."""


class NotApplicableError(JaxGLMMError, ValueError):
    """The method asked for does not apply to this model."""


class JaxGLMMWarning(UserWarning):
    """Base of every warning that jaxglmm gives on purpose."""


class MissingRowsWarning(JaxGLMMWarning):
    """Rows with missing values were dropped."""


class RankDeficientWarning(JaxGLMMWarning):
    """Columns of the fixed-effects design were dropped: they depend on others."""


class NotEstimableWarning(JaxGLMMWarning):
    """A number was asked for that the data cannot tell: NaN stands in its place."""


class SingularFitWarning(JaxGLMMWarning):
    """A variance is estimated as zero, or a correlation as plus or minus one."""


class SeparationWarning(JaxGLMMWarning):
    """Coefficients or random effects that the likelihood drives to infinity."""


class DispersionWarning(JaxGLMMWarning):
    """A dispersion parameter at the end of its range."""


class ZeroInflationWarning(JaxGLMMWarning):
    """A probability of added zeros at an end of its range, in all rows."""


class PosteriorWarning(JaxGLMMWarning):
    """Draws that cannot be relied on: weights, divergences, chains that disagree."""


class ConvergenceWarning(JaxGLMMWarning):
    """The optimiser stopped before its test of convergence was met."""


class ScaleWarning(JaxGLMMWarning):
    """Numbers of very different size where it matters."""


class PriorWeightsWarning(JaxGLMMWarning):
    """Draws from a fit that know nothing of its prior weights."""


class NewLevelsWarning(JaxGLMMWarning):
    """Prediction for levels that were not in the data."""


class CacheWarning(JaxGLMMWarning):
    """Compiled programs cannot be kept on disk."""
