"""The generic cell rate algorithm, in whole microseconds: one number a key, exact, with no clock of its own.

A key's *arrival* is the time at which its past use will have been paid off: each unit moves it one interval on. A cost
fits if the arrival would then be at most one burst (the whole count) ahead of now. 100 an hour is an interval of
36 s and a burst of 3,600 s: 100 at once, then one every 36 s.
"""

from dataclasses import dataclass, field

MAX_COUNT = 100_000_000
MAX_WINDOW_S = 31 * 86_400


@dataclass(frozen=True, slots=True)
class Limit:
    """``count`` units (1 to 10**8) a ``window_s`` (1 s to 31 days). Raises ValueError outside of that.

    ``interval_us`` is rounded up, so that the limit is never exceeded and a burst is exactly ``count``; where the count
    does not divide the window the rate is lower by less than one microsecond an interval.
    """

    count: int
    window_s: int
    interval_us: int = field(init=False, repr=False, compare=False)
    burst_us: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not (0 < self.count <= MAX_COUNT and 0 < self.window_s <= MAX_WINDOW_S):
            raise ValueError(f"a limit is 1 to {MAX_COUNT} units in 1 to {MAX_WINDOW_S} seconds")
        if self.count > self.window_s * 1_000_000:
            raise ValueError("a limit has at most one unit a microsecond")
        interval_us = -(-self.window_s * 1_000_000 // self.count)
        object.__setattr__(self, "interval_us", interval_us)
        object.__setattr__(self, "burst_us", interval_us * self.count)


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of one request for units.

    ``arrival_us`` is to be kept (unchanged if refused); ``remaining`` units would fit now, after this.
    ``retry_after_s`` is 0 if allowed, else when the same cost fits, or None if it never does (it is more than the whole
    count). ``reset_s`` is when ``remaining`` next grows (0 if it is full). Both in whole seconds, rounded up.
    """

    allowed: bool
    arrival_us: int
    remaining: int
    retry_after_s: int | None
    reset_s: int


def decide(limit: Limit, arrival_us: int, now_us: int, cost: int = 1) -> Decision:
    """Decide on ``cost`` units (0 or more; 0 only looks). ``arrival_us`` is the key's last one, 0 for a new key.

    A clock that went back makes the answer stricter, never looser.
    """
    backlog_us = max(arrival_us - now_us, 0)
    over_us = overdraft_us(limit, backlog_us, cost)
    allowed = over_us <= 0
    if allowed and cost:
        backlog_us += cost * limit.interval_us
        arrival_us = now_us + backlog_us
    retry_after_s = 0 if allowed else whole_seconds(over_us) if cost <= limit.count else None
    return Decision(
        allowed=allowed,
        arrival_us=arrival_us,
        remaining=max((limit.burst_us - backlog_us) // limit.interval_us, 0),
        retry_after_s=retry_after_s,
        reset_s=whole_seconds(next_unit_us(limit, backlog_us)),
    )


def overdraft_us(limit: Limit, backlog_us: int, cost: int) -> int:
    """Time until ``cost`` fits on top of a backlog (arrival less now); 0 or less: it fits."""
    return backlog_us + cost * limit.interval_us - limit.burst_us


def next_unit_us(limit: Limit, backlog_us: int) -> int:
    """Time until one unit more fits than now; 0 when nothing is used."""
    over_us = backlog_us - limit.burst_us
    if over_us >= 0:
        return over_us + limit.interval_us
    return backlog_us and (backlog_us % limit.interval_us or limit.interval_us)


def whole_seconds(duration_us: int) -> int:
    """Seconds, rounded up."""
    return -(-duration_us // 1_000_000)
