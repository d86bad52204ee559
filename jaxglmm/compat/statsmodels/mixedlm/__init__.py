"""statsmodels' MixedLM: model, fit, results, questions."""
