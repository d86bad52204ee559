"""Power by simulation: responses drawn from a model, fitted, tested."""
