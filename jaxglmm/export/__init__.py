"""Fits for other libraries: ArviZ."""
