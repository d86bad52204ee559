"""One posterior: found, drawn from, certified and stored."""
