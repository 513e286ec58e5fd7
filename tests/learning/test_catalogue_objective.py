"""Masked diffusion that knows the catalogue, against sums written out."""
