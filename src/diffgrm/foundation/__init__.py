"""What every other folder stands on: names and errors, recipes, parts by name, storage, model folders."""
