"""Posteriors: engines behind one result, its checks, predictions and files."""
