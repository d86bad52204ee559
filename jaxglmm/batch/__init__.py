"""Many problems at once: lanes of one program, and data drawn for them."""
