"""Public datasets from their publishers: a file a family, and all of them by name in ``listing``."""
