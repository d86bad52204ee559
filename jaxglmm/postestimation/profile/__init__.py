"""Profile likelihood, of one model and of many."""
