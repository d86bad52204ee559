"""statsmodels' BayesMixedGLM and its results."""
