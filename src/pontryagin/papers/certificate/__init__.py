"""Steps that certify themselves, rho = 2C, beside Adam with a tuned rate."""
