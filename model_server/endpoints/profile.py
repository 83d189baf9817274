"""One record, every attribute the token may predict, one call."""

from collections.abc import Mapping

from starlette.types import Receive, Scope, Send

from model_server.attribute import Attribute
from model_server.bearer import Bearer
from model_server.endpoints.attributes import MAX_RECORD_BYTES
from model_server.endpoints.charging import Till
from model_server.endpoints.media_types import require_json
from model_server.endpoints.places import count, encode, named_place
from model_server.endpoints.resource import Handler
from model_server.endpoints.work_pool import WorkPool
from model_server.metering import ROWS
from model_server.records import decode_profile
from model_server.scoring import score_profile
from shared.http import read_body, send_json


def profile(bearer: Bearer, attributes: Mapping[str, Attribute], till: Till, pool: WorkPool) -> Handler:
    """``POST /v1/profile``: ``{"id", "attributes": [answer or error, in order of attribute id]}``.

    An attribute that can't read the record gives its error in its place; the others answer.
    """

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        caller = bearer.authenticate(scope)
        tab = caller.account.profile(caller.may_predict)
        scope["flex.meter"] = tab.note
        caller.require_any_predict()
        require_json(scope)
        async with till.charged_profile(scope, tab):
            body = await read_body(scope, receive, MAX_RECORD_BYTES)
            wanted = [attribute for attribute in attributes.values() if attribute.id in caller.may_predict]
            request_id = scope["flex.request_id"]
            answer, scored = await pool.run(lambda: _profiled(wanted, body, request_id))
            for attribute_id in scored:
                tab.tallies[attribute_id].add(ROWS, 1)
            await send_json(send, 200, answer)

    return handle


def _profiled(attributes: list[Attribute], body: bytes, request_id: str) -> tuple[bytes, list[str]]:
    """Give the answer, and the attributes that answered; runs in the pool."""
    record = decode_profile(body)
    results = score_profile(attributes, record)
    answers, scored = [], []
    for attribute, result in zip(attributes, results, strict=True):
        scored += [attribute.id] * count(attribute.id, [result])
        answers.append(named_place(attribute.id, result, request_id))
    return encode({"id": record.id, "attributes": answers}), scored
