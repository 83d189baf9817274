"""What still works when something is gone: the table of docs/operations.md as data.

The page is written from it, and ``tests/faults`` brings about every state and compares each cell; so the table says
nothing that nobody tested.
"""

from dataclasses import dataclass
from enum import StrEnum

FRESH, HOLD, STALE_KEYS = "FLEX_REQUIRE_FRESH_REVOCATIONS_S", "FLEX_STORE_OUTAGE_HOLD_S", "FLEX_JWKS_MAX_STALE_S"


class Cell(StrEnum):
    """What a caller sees; the numbers are HTTP statuses."""

    YES = "yes"
    REFUSED = "401"
    LATER = "503"
    DEGRADED = "degraded"
    NO = "no"
    GONE = "–"


@dataclass(frozen=True, slots=True)
class AtModel:
    """What a model server answers: to a good token, to a revoked one, and when asked whether it is ready."""

    good: Cell
    revoked: Cell
    ready: Cell


@dataclass(frozen=True, slots=True)
class AtAuth:
    """What an auth server answers: a known client that wants a token; whoever revokes; introspection and reading over
    the admin API; and when asked whether it is ready.
    """

    token: Cell
    revoke: Cell
    read: Cell
    ready: Cell


@dataclass(frozen=True, slots=True)
class State:
    """One row. ``variants`` are ways to get there that all look the same; ``how_long`` is for people."""

    name: str
    title: str
    model: AtModel
    auth: AtAuth
    how_long: str
    variants: tuple[str, ...] = ("",)


SERVED = AtModel(Cell.YES, Cell.REFUSED, Cell.YES)
TOO_OLD = AtModel(Cell.LATER, Cell.REFUSED, Cell.NO)
UNKNOWING = AtModel(Cell.LATER, Cell.LATER, Cell.NO)
FORGOTTEN_KEY = AtModel(Cell.REFUSED, Cell.REFUSED, Cell.YES)
ALL = AtAuth(Cell.YES, Cell.YES, Cell.YES, Cell.YES)
FROM_MEMORY = AtAuth(Cell.YES, Cell.LATER, Cell.YES, Cell.DEGRADED)
FROM_MEMORY_BLIND = AtAuth(Cell.YES, Cell.LATER, Cell.LATER, Cell.DEGRADED)
UNSIGNING = AtAuth(Cell.LATER, Cell.YES, Cell.YES, Cell.NO)
NOTHING = AtAuth(Cell.LATER, Cell.LATER, Cell.LATER, Cell.NO)
DEAD = AtAuth(Cell.GONE, Cell.GONE, Cell.GONE, Cell.GONE)

TABLE = (
    State("all_well", "nothing", SERVED, ALL, "–"),
    State("auth_dead", "auth server", SERVED, DEAD, f"`{FRESH}`: nobody sends heartbeats"),
    State("auth_dead_longer", "auth server, for longer", TOO_OLD, DEAD, "until it is back"),
    State("store_dead", "store", SERVED, FROM_MEMORY, "a minute", ("killed", "frozen")),
    State("store_dead_minute", "store, for more than a minute", SERVED, FROM_MEMORY_BLIND, f"`{HOLD}`"),
    State("store_dead_hold", f"store, beyond `{HOLD}`", SERVED, NOTHING, f"`{FRESH}`"),
    State("store_dead_longer", "store, beyond that", TOO_OLD, NOTHING, "until it is back"),
    State("both_dead", "auth server and store", SERVED, DEAD, f"`{FRESH}`"),
    State(
        "both_dead_restart", "both, at the model server's restart", SERVED, DEAD, f"`{FRESH}` since the last heartbeat"
    ),
    State(
        "both_dead_restart_unknowing",
        "both, and its snapshot is damaged, forged or missing",
        UNKNOWING,
        DEAD,
        "until the store and a heartbeat are back",
        ("damaged", "forged", "missing"),
    ),
    State(
        "both_dead_restart_keyless",
        "both, and its key set is damaged or missing",
        UNKNOWING,
        DEAD,
        "until the auth server is back",
        ("damaged", "missing"),
    ),
    State(
        "key_ring_damaged",
        "key ring on the auth server's disk: damaged or missing",
        SERVED,
        UNSIGNING,
        "until it is put back",
        ("damaged", "missing"),
    ),
    State("keys_folder_full", "auth server's disk: full or read-only", SERVED, ALL, "a minute"),
    State("keys_folder_full_longer", "auth server's disk, for longer", SERVED, UNSIGNING, "until there is room"),
    State(
        "feed_key_at_model",
        "feed key at the model server's restart: missing, another, open to others",
        UNKNOWING,
        ALL,
        "until the file is right (restart, unless it was open to others)",
        ("missing", "another", "open"),
    ),
    State(
        "feed_key_at_auth",
        "feed key at the auth server's restart: missing, another",
        SERVED,
        AtAuth(Cell.YES, Cell.LATER, Cell.LATER, Cell.YES),
        f"`{FRESH}`, then as without an auth server",
        ("missing", "another"),
    ),
    State(
        "key_set_away",
        "key set: name not resolved, endpoint down, slow, hanging, garbage, enormous, redirecting",
        SERVED,
        ALL,
        f"`{STALE_KEYS}`, its restart included; new keys are not seen",
        ("unresolved", "down", "slow", "hanging", "garbage", "enormous", "redirecting"),
    ),
    State("key_set_away_longer", f"key set, beyond `{STALE_KEYS}`", UNKNOWING, ALL, "until it is back"),
    State("key_set_old", "key set rolled back: the active key is not in it", SERVED, ALL, "3630 s"),
    State("key_set_old_longer", "key set rolled back, for longer", FORGOTTEN_KEY, ALL, "until the set is right"),
    State("feed_stale", f"model server cut off from the store, beyond `{FRESH}`", TOO_OLD, ALL, "until it is back"),
    State(
        "store_emptied",
        "what the store held: emptied, or an old backup put back",
        SERVED,
        ALL,
        "the auth servers write back what was revoked, not the clients: see below",
        ("emptied", "old"),
    ),
    State(
        "disk_full",
        "model server's disk: full or read-only",
        SERVED,
        ALL,
        "a restart starts from the older files",
        ("full", "read-only"),
    ),
)
HEAD = (
    "gone",
    "good token predicts",
    "revoked token",
    "new token",
    "revoke, change",
    "introspect, list",
    "auth ready",
    "model ready",
    "how long",
)


def markdown() -> str:
    """Give the table as the page has it."""
    rows = [HEAD, ("---",) * len(HEAD)]
    for state in TABLE:
        model, auth = state.model, state.auth
        cells = (model.good, model.revoked, auth.token, auth.revoke, auth.read, auth.ready, model.ready)
        rows.append((state.title, *cells, state.how_long))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
