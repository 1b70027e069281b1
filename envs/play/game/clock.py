"""When the steps of a game are due. Knows no threads and does not sleep."""

# Sleeping is not exact: a step that starts this share of a period late still counts as on time.
_TOLERANCE = 0.1


class StepClock:
    """When steps are due at a fixed rate. A late step delays the next ones: none are caught up."""

    def __init__(self, period_s: float) -> None:
        self.period_s = period_s
        self.num_missed = 0
        self._due: float | None = None

    def restart(self) -> None:
        """Let the next step be due at once, as after a pause."""
        self._due = None

    def wait_s(self, now: float) -> float:
        """Return the seconds until the next step is due, at least 0."""
        return 0.0 if self._due is None else max(0.0, self._due - now)

    def start_step(self, now: float) -> None:
        """Note that a step starts."""
        due = now if self._due is None else self._due
        is_late = now > due + _TOLERANCE * self.period_s
        self.num_missed += is_late
        self._due = (now if is_late else due) + self.period_s
