"""Suites of runs: recommenders on equal terms, with tables and intervals."""
