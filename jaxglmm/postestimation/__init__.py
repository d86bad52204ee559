"""What can be asked of a fitted model: each question a function of it."""
