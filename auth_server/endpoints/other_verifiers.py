"""What verifiers of other makers are served: status lists, and everything that is revoked."""

from collections.abc import Callable, Collection

from starlette.routing import Route, Router
from starlette.types import ASGIApp, Scope

from auth_server.endpoints.revocation_snapshot import SNAPSHOT_PATH, RevocationSnapshot
from auth_server.endpoints.statements import Knowledge, Statements
from auth_server.endpoints.status_lists import AggregationEndpoint, PublishedLists, StatusListEndpoint
from auth_server.keyring.signer import Signer
from auth_server.oauth.status import LISTS_PATH
from auth_server.stores.status_lists import StatusLists
from shared.revocations.feed_key import FeedKey


def other_verifiers(
    *,
    issuer: str,
    lists: StatusLists,
    feed_key: FeedKey,
    knowledge: Knowledge,
    signer: Signer,
    clock: Callable[[], float],
    authenticate: Callable[[Scope], Collection[str]],
    otherwise: ASGIApp,
) -> ASGIApp:
    """Make the application; what has another address goes to ``otherwise``. For ``authenticate`` see the snapshot."""
    statements = Statements(signer, clock=clock)
    published = PublishedLists(issuer, lists, feed_key, knowledge=knowledge, statements=statements)
    snapshot = RevocationSnapshot(issuer, knowledge=knowledge, statements=statements, authenticate=authenticate)
    routes = [
        Route(LISTS_PATH, AggregationEndpoint(published)),
        Route(LISTS_PATH + "/{list_id}", StatusListEndpoint(published)),
        Route(SNAPSHOT_PATH, snapshot),
    ]
    return Router(routes, redirect_slashes=False, default=otherwise)
