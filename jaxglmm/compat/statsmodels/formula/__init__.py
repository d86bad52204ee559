"""The place of ``statsmodels.formula``."""
