"""What can be wrong with a request for an experiment."""


class ExperimentError(ValueError):
    """A setting, a folder or a file of an experiment is wrong: says what was expected, found, and what to
    do."""
