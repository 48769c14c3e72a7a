"""The sine experiment: Figure 1 of [LCTE]."""
