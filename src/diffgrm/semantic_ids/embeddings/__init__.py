"""Item texts to vectors: ``lsa``, ``sentence_transformer``, ``precomputed``."""
