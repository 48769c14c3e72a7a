"""How a request can fail: it is wrong, it has no answer, or its numbers are wrong."""


class ProblemError(ValueError):
    """A control problem, a stage or a setting is wrong: says what was expected and what was found."""


class NoMaximumError(ProblemError):
    """The augmented Hamiltonian grows without end over the admissible set: there is no argmax to take."""


class NonFiniteError(ArithmeticError):
    """A state, a cost or a control is NaN or infinite. Nothing has been changed when this is raised."""
