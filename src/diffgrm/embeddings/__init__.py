"""Item texts to vectors: ``lsa``, ``sentence_transformer``, ``precomputed``."""

from diffgrm.embeddings.base import ItemEncoder, check_embeddings, embed_items

__all__ = ["ItemEncoder", "check_embeddings", "embed_items"]
