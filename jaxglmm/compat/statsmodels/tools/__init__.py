"""The place of ``statsmodels.tools``."""
