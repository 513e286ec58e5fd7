"""Tables, ids, splits, public datasets (floor 1)."""
