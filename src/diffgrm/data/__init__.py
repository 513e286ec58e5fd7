"""Tables, datasets, public sources and training batches."""
