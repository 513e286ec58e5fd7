"""Scores of whole items: small scorers and their weighted sum."""
