"""The place of ``statsmodels.genmod``."""
