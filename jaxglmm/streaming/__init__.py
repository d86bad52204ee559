"""Models of data that are read in batches and never held: sources, passes, fits."""
