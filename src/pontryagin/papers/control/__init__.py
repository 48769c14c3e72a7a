"""Classical problems of optimal control, with known optima."""
