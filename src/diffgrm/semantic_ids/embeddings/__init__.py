"""Item texts to vectors: ``lsa``, ``sentence_transformer``, ``precomputed``, ``text_and_events``."""
