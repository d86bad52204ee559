"""jaxglmm: mixed models on JAX."""
