"""The end of a client's tokens when the client itself is ended: disabled, deleted, or its secret fell into other hands.

First the record, then the revocation, so no token that was decided on the old record is younger than the watermark. A
worker decides on its copy until the change reaches it, milliseconds later; so the watermark is written at once, which
ends what is out there, and once more when that time is over.
"""

import asyncio
from collections.abc import Callable

from shared.errors import AppError
from shared.revocations.entries import client_revoked
from shared.revocations.recent import Position
from shared.revocations.writer import RevocationFeed

SETTLE_S = 0.1
_PAUSES_S = (0.1, 0.5, 1.0)


async def end_tokens_of_client(feed: RevocationFeed, client_id: str, clock: Callable[[], float]) -> Position:
    """End every token of a client issued until now; to be called after the change of its record is in the store.

    ``clock`` gives UTC seconds. Raises AppError, after three more attempts where the store is away, saying what is left
    to do.
    """
    try:
        await _written(feed, client_id, clock)
        await asyncio.sleep(SETTLE_S)
        return await _written(feed, client_id, clock)
    except AppError as error:
        raise AppError(
            error.code,
            f"The client is changed, but its tokens may still be good ({error.detail}) "
            f"Do again: flex token revoke --client {client_id}",
        ) from None


async def _written(feed: RevocationFeed, client_id: str, clock: Callable[[], float]) -> Position:
    for pause_s in _PAUSES_S:
        try:
            return await feed.revoke(client_revoked(client_id, clock()))
        except AppError as error:
            if error.code != "store_unavailable":
                raise
        await asyncio.sleep(pause_s)
    return await feed.revoke(client_revoked(client_id, clock()))
