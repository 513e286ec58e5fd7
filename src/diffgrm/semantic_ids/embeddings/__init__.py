"""Item texts to vectors: ``lsa``, sentence encoders, ``precomputed``, ``text_and_events``."""
