"""The Hessian beside which the paper's gradient methods stand still."""
