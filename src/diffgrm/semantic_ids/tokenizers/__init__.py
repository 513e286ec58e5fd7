"""Vectors to digits: ``opq`` (PSE, the paper), ``residual_kmeans``, ``simhash``, ``random``."""
