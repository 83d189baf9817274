"""What each event means to whoever reads the log, and what to do about it; ``docs/events.md`` is made from this."""

from typing import NamedTuple

from shared.events import Event


class EventKind(NamedTuple):
    """``meaning``: what happened, with the fields that matter; ``action``: what an operator does, empty: nothing."""

    meaning: str
    action: str = ""


CATALOGUE: dict[Event, EventKind] = {
    Event.HTTP_REQUEST: EventKind("One answered request (`FLEX_LOG_ACCESS=1`)."),
    Event.TOKEN_ISSUED: EventKind(
        "An access token was issued (`jti`, `aud`, `scope`); `without_store`: from memory, the store being away."
    ),
    Event.TOKEN_REFUSED: EventKind("A token request was refused, for `reason`."),
    Event.CLIENT_AUTHENTICATION_FAILED: EventKind(
        "A client is unknown or disabled, or its secret is wrong: callers are not told which, `reason` is.",
        "Many of one `client_id`: it has an old secret, or somebody guesses.",
    ),
    Event.CLIENT_CREATED: EventKind("A client was registered."),
    Event.CLIENT_SECRET_ROTATED: EventKind("A client has a new secret; `compromised`: all old ones ended at once."),
    Event.CLIENT_DISABLED: EventKind("A client was disabled, or enabled again (`disabled: false`)."),
    Event.CLIENT_DELETED: EventKind("A client was deleted."),
    Event.REVOCATION_REFUSED: EventKind("A request to revoke a token was refused, for `reason`."),
    Event.REVOCATION_WRITTEN: EventKind("Something is revoked: `kind`, `key` (an id, never a token), `by`, `reason`."),
    Event.REVOCATION_EPOCH_OPENED: EventKind(
        "The revocation stream begins anew: the first start (`no_head`), or the store lost it; what this server knew "
        "is in it again (`n_entries`).",
        "Not the first start: find out why the store lost data.",
    ),
    Event.REVOCATION_HEAD_REFUSED: EventKind(
        "The head of the stream is not authentic.",
        "Two feed keys are in use, or somebody else writes to the store.",
    ),
    Event.REVOCATION_WRITES_RESTORED: EventKind(
        "Revocations that a failover had lost were written again.", "Make the store's replication wait for writes."
    ),
    Event.REVOCATION_FEED_WRITE_FAILED: EventKind(
        "A heartbeat or a repair could not be written.", "Look at the store."
    ),
    Event.INTROSPECTION_REFUSED: EventKind("A request to introspect a token was refused, for `reason`."),
    Event.ADMIN_CHANGE: EventKind("A client changed something by the admin API: `client_id`, `method`, `route`."),
    Event.BEARER_REFUSED: EventKind(
        "A token was refused; callers read one sentence for all, `reason` is precise (`token_revoked`, `expired`, …)."
    ),
    Event.SCOPE_REFUSED: EventKind("A good token lacks a scope (`needed`)."),
    Event.KEY_PREPARED: EventKind("A standby key was made and is published."),
    Event.KEY_ACTIVATED: EventKind("Another key signs from now on."),
    Event.KEY_RETIRED: EventKind("A key signs no more and stays published until its last token is over."),
    Event.KEY_REMOVED: EventKind("A retired key was removed, or a standby key withdrawn."),
    Event.KEY_REVOKED: EventKind("A compromised key was dropped; `source: feed`: a model server learned of it."),
    Event.KEY_ROTATION_REFUSED: EventKind("A change of the key ring was refused, for `reason`."),
    Event.KEY_ACTIVATION_FORCED: EventKind(
        "A key was activated without the checks; `missing` says what spoke against it."
    ),
    Event.KEY_ROTATION_BLOCKED: EventKind(
        "A scheduled rotation is due and waits for the key's age or for `laggards`.",
        "See that each verifier it names reaches the issuer and the store; `flex keys status`.",
    ),
    Event.KEY_REVOCATION_PUSHED: EventKind("A dropped key is in the revocation feed."),
    Event.KEY_ANNOUNCEMENT_FAILED: EventKind(
        "Canaries or a dropped key could not be told to the verifiers; it is tried again.", "Look at the store."
    ),
    Event.CANARIES_PUBLISHED: EventKind(
        "Tokens by which the verifiers prove the keys of `generation` are in the store."
    ),
    Event.KEY_RING_LOADED: EventKind("A worker uses another state of the key ring."),
    Event.KEY_RING_PROBLEM: EventKind(
        "The keys folder can't be read or is not to be trusted; signing goes on with the ring in memory.",
        "Repair or restore `keys/` before the next restart.",
    ),
    Event.KEY_SET_REFRESHED: EventKind("A model server holds another key set (`source`: the issuer, or its disk)."),
    Event.KEY_SET_REFUSED: EventKind(
        "What the issuer (or the disk) gave is no good key set; the last good one stays.",
        "Is it the issuer at all? See `reason`.",
    ),
    Event.KEY_SET_UNREACHABLE: EventKind("The issuer's keys could not be fetched; the last good ones stay."),
    Event.KEY_VANISHED: EventKind(
        "A key is no longer in the issuer's set; it is kept while its tokens may live, if the feed vouches for it.",
        "None right after a removal; else the set served is an old one: look at caches before the auth server.",
    ),
    Event.KEY_SET_STALE: EventKind(
        "The last good key set is older than `FLEX_JWKS_MAX_STALE_S`: tokens get 503.", "Bring the auth server back."
    ),
    Event.KEY_PROVED: EventKind("A model server verified the canary of a key, so it may sign for it."),
    Event.REVOCATION_STATE_CHANGED: EventKind("A follower of the feed is `following`, `rebuilding`, `broken`, …"),
    Event.REVOCATION_FRESHNESS_CHANGED: EventKind(
        "What a model server knows of revocations is `ok`, `degraded` (over 5 s old) or `refuse` (tokens get 503).",
        "Look at the store, and whether an auth server runs: it sends the heartbeats.",
    ),
    Event.REVOCATION_GAP_FOUND: EventKind(
        "Entries of the feed are missing or not authentic; the follower rebuilds its set.",
        "Once: a failover. Often: look at the store.",
    ),
    Event.REVOCATION_BEAT_REFUSED: EventKind(
        "A heartbeat is not authentic, or from the future.", "Compare the hosts' clocks and feed keys."
    ),
    Event.REVOCATION_FOLLOWER_FAILED: EventKind("A follower hit something unexpected and starts again.", "Report it."),
    Event.REVOCATION_SNAPSHOT_LOADED: EventKind("A model server began with the revocations on its disk."),
    Event.REVOCATION_SNAPSHOT_REFUSED: EventKind(
        "The revocations on disk are damaged, foreign or too old; the feed is awaited."
    ),
    Event.REVOCATION_SNAPSHOT_FAILED: EventKind(
        "The revocations could not be saved to disk.", "Look at the var folder."
    ),
    Event.FEED_KEY_PROBLEM: EventKind(
        "The feed key can't be read, or others may read it.", "Give its file to the server's user, mode 0600."
    ),
    Event.VERIFIER_REPORT_FAILED: EventKind(
        "A model server could not report which keys it holds.", "Look at the store; rotations may wait."
    ),
    Event.BUNDLE_LOADED: EventKind("A model is ready to serve."),
    Event.BUNDLE_REFUSED: EventKind(
        "A model is damaged or not what its manifest says; it is not served.", "Install the bundle again."
    ),
    Event.STATUS_LIST_PROBLEM: EventKind(
        "Records of a status list were lost (what is known stays), or are not authentic (then it gets 503)."
    ),
    Event.STORE_STARTED: EventKind("The embedded store runs."),
    Event.STORE_LOST: EventKind(
        "The store is away, for `kind` (clients, limits, usage, embedded).", "Look at the store."
    ),
    Event.STORE_RECOVERED: EventKind("The store is back, for `kind`."),
    Event.USAGE_DROPPED: EventKind("Usage of `n_calls` calls could not be kept or written."),
    Event.SERVER_STARTED: EventKind("A worker listens."),
    Event.SERVER_STOPPING: EventKind("A worker ends."),
    Event.PROCESS_CRASHED: EventKind("A process ended by itself and is started again.", "The lines before say why."),
    Event.INSECURE_OPTION: EventKind("An unsafe option is in use."),
    Event.INTERNAL_ERROR: EventKind("A defect of this server; `request_id` names the call.", "Report it."),
}
