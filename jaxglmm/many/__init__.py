"""Many models at once: planned, scheduled, fitted in lanes, kept as a table."""
