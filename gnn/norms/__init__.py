"""Compute norms: EWMA states of step metrics, and priors fitted on the catalogue."""
