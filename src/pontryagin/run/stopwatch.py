"""A clock that runs only while the method works, not while it is being evaluated."""

from time import perf_counter


class Stopwatch:
    """Seconds between start() and pause(), added up."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._since: float | None = None

    def start(self) -> None:
        """Go on."""
        self._since = perf_counter()

    def pause(self) -> float:
        """Stop, and return all seconds so far."""
        if self._since is not None:
            self.seconds += perf_counter() - self._since
            self._since = None
        return self.seconds
