"""Covariances of random effects: theta to Lambda."""
