"""The audit of a trained network as a run: from names to files, figures and a report."""
