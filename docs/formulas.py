"""Formulas of the central objects, typeset on the site; their docstrings say them in text."""

FORMULAS = {
    "problem.ControlProblem": r"J(\theta) = \frac{1}{K} \sum_i \Phi_i(x^i_N) + \delta \sum_n L(\theta_n),"
                              r" \qquad x_{n+1} = g_n(x_n, \theta_n)",
    "continuous.ContinuousProblem": r"J = \frac{1}{K} \sum_i \Phi(x^i(T)) + \int_0^T L(t, x, \theta)\, dt,"
                                    r" \qquad \dot x = f(t, x, \theta)",
    "hamiltonian.hamiltonian": r"H_n(x, p, \theta) = p \cdot g_n(x, \theta) - \delta L(\theta)",
    "hamiltonian.costate": r"p_N = -\nabla \Phi(x_N), \qquad p_n = \nabla_x H_n(x_n, p_{n+1}, \theta_n)",
    "hamiltonian.augmented": r"\tilde H_n(\theta) = H_n(x_n, p_{n+1}, \theta)"
                             r" - \tfrac{\rho}{2} \| g_n(x_n, \theta) - x_{n+1} \|^2"
                             r" - \tfrac{\rho}{2} \| \nabla_x H_n(x_n, p_{n+1}, \theta) - p_n \|^2",
    "hamiltonian.state_error": r"\| g_n(x_n, \theta') - g_n(x_n, \theta) \|^2",
    "hamiltonian.costate_error": r"\| \nabla_x H_n(x_n, p_{n+1}, \theta')"
                                 r" - \nabla_x H_n(x_n, p_{n+1}, \theta) \|^2",
    "update.MSA": r"\theta_n \leftarrow \operatorname{argmax}_{\theta \in \Theta} \frac{1}{K} \sum_i"
                  r" H_n(x^i_n, p^i_{n+1}, \theta)",
    "update.ExtendedMSA": r"\theta_n \leftarrow \operatorname{argmax}_{\theta \in \Theta} \frac{1}{K} \sum_i"
                          r" \tilde H_n(x^i_n, p^i_{n+1}, \theta), \qquad"
                          r" J_{k+1} \le J_k - \Bigl(1 - \frac{2C}{\rho}\Bigr) \mu_k \text{ for } \rho > 2C",
    "update.IterationRecord": r"\mu_k = \sum_n \Delta H_n, \qquad J(\varphi) \le J(\theta) - \sum_n"
                              r" \Delta H_n + C \sum_n \bigl( \| \Delta g_n \|^2"
                              r" + \| \Delta \nabla_x H_n \|^2 \bigr)"
                              r" \quad \text{(Lemma 2)}",
    "update.FromEstimate": r"\rho = 2C, \qquad C = \frac{\mu - (J_{\text{before}} - J_{\text{after}})}"
                           r"{\text{feasibility errors}}",
    "affine.StageMoments": r"s = \operatorname{mean}(x), \quad A_c = \operatorname{mean}(x x^T) - s s^T,"
                           r" \quad G = \operatorname{mean}(u x^T), \quad g = \operatorname{mean}(u), \quad"
                           r" U = \operatorname{mean}(u u^T)",
    "affine.PenalizedArgmax": r"U\, \Delta W + \Delta W A_c = \frac{G - g s^T}{\rho}, \qquad"
                              r" \Delta b = \frac{g}{\rho} - \Delta W s",
    "affine.argmax": r"\Delta W = (G - g s^T)(A_c + \delta I)^{-\alpha}, \qquad \Delta b = g - \Delta W s",
    "optim.EMSA": r"\Delta W = (G - g s^T)(A_c + \delta I)^{-1/2}, \quad \Delta b = g - \Delta W s, \quad"
                  r" \Delta z_i \text{ divided by } \rho_i = \sqrt{\operatorname{mean}(\Delta z_i^2)}",
}
"""By public name, within `pontryagin`."""
