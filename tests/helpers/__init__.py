"""What tests share: recipes, data, networks, servers."""
