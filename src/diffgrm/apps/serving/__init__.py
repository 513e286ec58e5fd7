"""The HTTP server of a saved model and its page."""
