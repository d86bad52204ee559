"""What single rows and levels do to a fit, and what predictors do to each other."""
