"""Search for the settings of a recipe that do best on validation."""
