"""How a request can fail: it is wrong, it has no answer, its numbers are wrong, or another process ends."""


class ProblemError(ValueError):
    """A control problem, a stage or a setting is wrong: says what was expected and what was found."""


class NoMaximumError(ProblemError):
    """The augmented Hamiltonian grows without end over the admissible set: there is no argmax to take."""


class NonFiniteError(ArithmeticError):
    """A state, a cost or a control is NaN or infinite. Nothing has been changed when this is raised."""


class LostProcessError(RuntimeError):
    """Another process of the run has ended or does not answer: says which and why, as far as that is known.

    interrupted: whether it was ended by Ctrl-C or SIGTERM.
    """

    def __init__(self, words: str, *, interrupted: bool = False) -> None:
        super().__init__(words)
        self.interrupted = interrupted
