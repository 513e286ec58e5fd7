"""Networks (floor 4). They take integers, never a dataset, tokenizer or recipe."""
