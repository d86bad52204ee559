"""Whether the model fits: residuals, tests, explained variance, refits."""
