"""What the training loop optimises, one objective a file."""
