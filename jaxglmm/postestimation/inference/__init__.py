"""Tests, degrees of freedom, hypotheses and intervals."""
