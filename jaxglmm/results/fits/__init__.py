"""Results of many models: from the lanes to tables, one model at a time, to files."""
