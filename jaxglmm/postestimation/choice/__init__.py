"""Which model: terms left out, criteria, cross-validation, starts, imputations."""
