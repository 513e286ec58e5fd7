"""Vectors to digits: ``opq`` (PSE, the paper), ``residual_kmeans``, ``random``."""

from diffgrm.tokenizers.base import Tokenizer

__all__ = ["Tokenizer"]
