"""Vectors to digits: ``opq`` (PSE, the paper), ``residual_kmeans``, ``mh_vqvae``, ``rq_vae``, ``simhash``, ``random``."""
