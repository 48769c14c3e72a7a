"""The two ways in which a request can fail: it is wrong, or its numbers are."""


class ProblemError(ValueError):
    """A control problem, a stage or a setting is wrong: says what was expected and what was found."""


class NonFiniteError(ArithmeticError):
    """A state, a cost or a control is NaN or infinite. Nothing has been changed when this is raised."""
