"""Vectors to digits: ``opq`` (the paper), ``residual_kmeans``, autoencoders, ``simhash``, ``random``, ``from_file``."""
