"""What is optimised, and the one loop in which it is: batches, noising, losses, objectives."""
