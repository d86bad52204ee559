"""What generalised models add to a fit: scales, means, checks, profiles."""
