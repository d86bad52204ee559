"""Marginal means over a reference grid, their contrasts, tests of several at once."""
