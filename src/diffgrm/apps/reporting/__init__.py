"""A suite's results as one page with figures."""
