"""From item texts to digits: embeddings, tokenizers, collision repair, semantic IDs."""
