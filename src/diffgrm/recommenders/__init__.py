"""Recommenders: the one door for fit, recommend, save and load."""

from diffgrm.recommenders.base import Recommender, load

__all__ = ["Recommender", "load"]
