"""Networks. They take integers, never a dataset, tokenizer or recipe."""
