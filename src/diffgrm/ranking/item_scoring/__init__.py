"""Scores of items: small scorers and their weighted sum."""
