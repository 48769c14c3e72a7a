"""The paper's image experiments: Figures 2, 3 and 4."""
