"""Predictions, means, slopes and residuals."""
