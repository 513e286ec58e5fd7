"""Tables, ids, splits, public datasets."""
