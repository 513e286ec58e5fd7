"""What tests share: recipes, networks, catalogues, runs, servers."""
