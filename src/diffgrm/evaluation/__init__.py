"""Metrics by item on tables, and intervals of differences."""
