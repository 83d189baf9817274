"""The attributes a token may use: their list, their cards, one prediction, one explanation."""

from collections.abc import Mapping

from starlette.types import ASGIApp, Receive, Scope, Send

from model_server.accounts import Tab
from model_server.answers import Insufficient
from model_server.attribute import Attribute
from model_server.bearer import Bearer, Caller
from model_server.endpoints.charging import Till
from model_server.endpoints.media_types import require_json
from model_server.endpoints.places import encode
from model_server.endpoints.resource import Handler, for_caller
from model_server.endpoints.work_pool import WorkPool
from model_server.explanations import explain
from model_server.metering import EXPLANATIONS, ROWS
from model_server.scoring import score
from shared.errors import AppError
from shared.http import JSON, NO_STORE, Answer, HotRoute, check_size, read_body, send_json
from shared.telemetry import RECORDS_REFUSED, SCORES

MAX_RECORD_BYTES = 64 * 1024


def list_attributes(bearer: Bearer, attributes: Mapping[str, Attribute]) -> Handler:
    """``GET /v1/attributes``: those that this token may use, with the addresses it may call."""

    async def handle(caller: Caller, _scope: Scope, send: Send) -> None:
        listed = [
            {
                "id": attribute.id,
                "title": attribute.title,
                "version": attribute.version,
                "endpoints": _endpoints(caller, attribute.id),
            }
            for attribute in attributes.values()
            if attribute.id in caller.visible
        ]
        await send_json(send, 200, encode({"attributes": listed}))

    return for_caller(bearer, handle)


def _endpoints(caller: Caller, attribute_id: str) -> dict[str, str]:
    address = f"/v1/attributes/{attribute_id}"
    endpoints = {"card": address}
    if attribute_id in caller.may_predict:
        endpoints |= {"predict": f"{address}/predict", "batch": f"{address}/predict/batch"}
    if attribute_id in caller.may_explain:
        endpoints["explain"] = f"{address}/explain"
    return endpoints


def show_attribute(bearer: Bearer, attributes: Mapping[str, Attribute]) -> Handler:
    """``GET /v1/attributes/{id}``: model card (Markdown), JSON Schema of a record, a ready-to-send body."""

    async def handle(caller: Caller, scope: Scope, send: Send) -> None:
        attribute_id = scope["path_params"]["id"]
        caller.require_visible(attribute_id)
        attribute = attributes[attribute_id]
        shown = {
            "id": attribute.id,
            "title": attribute.title,
            "version": attribute.version,
            "card": attribute.card,
            "schema": attribute.json_schema(),
            "example": attribute.example(),
        }
        await send_json(send, 200, encode(shown))

    return for_caller(bearer, handle)


def open_tab(caller: Caller, attribute_id: str, scope: Scope) -> Tab:
    """Find what a call is charged to, and have its outcome counted there, whatever it will be."""
    account = caller.account
    tab = account.tabs.get(attribute_id) or account.open(attribute_id)
    scope["flex.meter"] = tab.note
    return tab


def predict(attribute: Attribute, bearer: Bearer, till: Till, label: str) -> HotRoute:
    """``POST /v1/attributes/{id}/predict``: one record, one score, on the event loop (20 µs in all)."""
    attribute_id, decode, authenticate = attribute.id, attribute.decoder.decode, bearer.authenticate
    scored, insufficient = (SCORES.labels(attribute_id, outcome) for outcome in ("scored", "insufficient_data"))

    def allow(scope: Scope) -> Tab:
        caller = authenticate(scope)
        tab = open_tab(caller, attribute_id, scope)
        caller.require_predict(attribute_id)
        require_json(scope)
        return tab

    def scored_body(tab: Tab, body: bytes) -> bytes:
        try:
            record = decode(body)
        except AppError:
            RECORDS_REFUSED.labels(attribute_id).inc()
            raise
        answer = score(attribute, record)
        (insufficient if type(answer) is Insufficient else scored).inc()
        tab.tally.counts[ROWS] += 1  # the edge notes the call, and with it the tally
        return encode(answer)

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        tab = allow(scope)
        async with till.charged(scope, tab.key_set):
            await send_json(send, 200, scored_body(tab, await read_body(scope, receive, MAX_RECORD_BYTES)))

    def prompt(scope: Scope, body: bytes) -> Answer | None:
        tab = allow(scope)
        if not till.at_once(scope, tab.key_set):
            return None
        check_size(body, MAX_RECORD_BYTES)
        return 200, [JSON, NO_STORE], scored_body(tab, body)

    return HotRoute(handle, label, prompt)


def explanation(attribute: Attribute, bearer: Bearer, till: Till, pool: WorkPool) -> ASGIApp:
    """``POST /v1/attributes/{id}/explain``: contributions, reasons, and which missing answer would help most."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        caller = bearer.authenticate(scope)
        tab = open_tab(caller, attribute.id, scope)
        caller.require_explain(attribute.id)
        require_json(scope)
        async with till.charged(scope, tab.key_set, tab.explanation):
            body = await read_body(scope, receive, MAX_RECORD_BYTES)
            answer = await pool.run(lambda: _explained(attribute, body))
            tab.tally.add(EXPLANATIONS, 1)
            await send_json(send, 200, answer)

    return handle


def _explained(attribute: Attribute, body: bytes) -> bytes:
    try:
        record = attribute.decoder.decode(body)
    except AppError:
        RECORDS_REFUSED.labels(attribute.id).inc()
        raise
    SCORES.labels(attribute.id, "explained").inc()
    return encode(explain(attribute, record))
