"""Optimizers compared on the clock."""
