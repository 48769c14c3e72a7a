"""Models, data, runs, figures and reports: what the command line repeats."""
