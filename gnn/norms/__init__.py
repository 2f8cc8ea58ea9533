"""EWMA states and fitted priors."""
