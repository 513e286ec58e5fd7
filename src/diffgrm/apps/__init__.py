"""What people start: the command line, the demo, the server, suites of runs, reports."""
