"""Summaries and tables of one fit."""
