"""Many problems at once: lanes of one compiled program, and data sets drawn for them."""
