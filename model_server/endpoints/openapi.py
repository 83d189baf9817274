"""The OpenAPI 3.1 document: one concrete path for each attribute and endpoint, each with its own record schema."""

from collections.abc import Iterable, Mapping

from model_server.attribute import Attribute
from model_server.endpoints.openapi_schemas import SCHEMAS, STRING, Json
from shared.error_catalogue import CATALOGUE

API_VERSION = "1"
"""The version in every address; a change that breaks callers gets a new one."""

_HEADERS: Json = {
    name: {"description": text, "schema": {"type": "string"}}
    for name, text in (
        ("RateLimit-Policy", "The limits of this caller: q calls or rows in w seconds."),
        ("RateLimit", "What is left of each (r), and in how many seconds there is more (t)."),
        ("Retry-After", "Seconds until a repetition makes sense."),
    )
}

_PROTECTED = ("unauthenticated", "insufficient_scope", "not_found")
_UNAVAILABLE = ("keys_unavailable", "revocations_stale", "overloaded")
_SENT = (
    "malformed_json",
    "request_timeout",
    "payload_too_large",
    "unsupported_media_type",
    "invalid_record",
    "too_many_requests",
)


def document(resource: str, issuer: str, attributes: Mapping[str, Attribute]) -> Json:
    """Make the whole document; it changes only with the attributes."""
    paths: Json = {
        "/v1/attributes": _get("The attributes that this token may use", "Attributes", _list_schema()),
        "/v1/profile": _profile(attributes),
    }
    for attribute in attributes.values():
        paths |= _attribute_paths(attribute)
    paths |= _open_paths()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Flex model server",
            "version": API_VERSION,
            "summary": "Attribute scores with intervals, behind verified access tokens.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": resource}],
        "security": [{"oauth2": []}],
        "paths": paths,
        "components": {
            "schemas": SCHEMAS | {_record_name(each.id): _record(each) for each in attributes.values()},
            "responses": {code: _problem_response(code) for code in (*_PROTECTED, *_SENT)} | _unavailable(),
            "headers": _HEADERS,
            "securitySchemes": {"oauth2": _security(issuer, attributes)},
        },
    }


def _security(issuer: str, attributes: Iterable[str]) -> Json:
    scopes = {f"{action}:{name}": f"{action} {name}" for name in attributes for action in ("predict", "explain")}
    wildcards = {"predict:*": "predict every attribute", "explain:*": "explain every attribute", "admin": "everything"}
    flow = {"tokenUrl": f"{issuer}/oauth2/token", "scopes": scopes | wildcards}
    return {"type": "oauth2", "flows": {"clientCredentials": flow}}


def _attribute_paths(attribute: Attribute) -> Json:
    address, title = f"/v1/attributes/{attribute.id}", attribute.title
    record = _ref(_record_name(attribute.id))
    predict, explain = [f"predict:{attribute.id}"], [f"explain:{attribute.id}"]
    answer = {"oneOf": [_ref("Answer"), _ref("Insufficient")]}
    example = attribute.example()
    explained = {"oneOf": [_ref("Explanation"), _ref("Unexplained")]}
    batch = _post(f"Score up to 1,000 records: {title}", predict, _records(record), _results(answer), None)
    batch["post"]["requestBody"]["content"]["application/x-ndjson"] = {
        "schema": {"type": "string", "description": "One record a line, any number of lines; answered line by line."}
    }
    batch["post"]["responses"]["200"]["content"]["application/x-ndjson"] = {"schema": {"type": "string"}}
    return {
        address: _get(f"Card, schema and example: {title}", title, _ref("Attribute")),
        f"{address}/predict": _post(f"Score one record: {title}", predict, record, answer, example),
        f"{address}/predict/batch": batch,
        f"{address}/explain": _post(f"Explain one score: {title}", explain, record, explained, example),
    }


def _record_name(attribute_id: str) -> str:
    return f"Record-{attribute_id}"


def _record(attribute: Attribute) -> Json:
    # OpenAPI 3.1 names the dialect once for the whole document, and this is its default.
    return {key: value for key, value in attribute.json_schema().items() if key != "$schema"}


def _records(record: Json) -> Json:
    records = {"type": "array", "items": record, "minItems": 1, "maxItems": 1000}
    return {"type": "object", "properties": {"records": records}, "required": ["records"]}


def _results(answer: Json) -> Json:
    one = {"oneOf": [*answer["oneOf"], _ref("Problem")]}
    return {"type": "object", "properties": {"results": {"type": "array", "items": one}}}


def _profile(attributes: Mapping[str, Attribute]) -> Json:
    features = {feature.name for attribute in attributes.values() for feature in attribute.features}
    record = {
        "type": "object",
        "properties": {
            "id": {"type": ["string", "null"]},
            "features": {
                "type": "object",
                "properties": {name: {"type": ["number", "null"]} for name in sorted(features)},
            },
        },
        "required": ["features"],
    }
    one = {"oneOf": [_ref("Answer"), _ref("Insufficient"), _ref("Problem")]}
    answers = {"id": {"type": ["string", "null"]}, "attributes": {"type": "array", "items": one}}
    summary = "Score one record by every attribute that this token may predict"
    return _post(summary, [], record, {"type": "object", "properties": answers}, None)


def _list_schema() -> Json:
    properties = {"id": STRING, "title": STRING, "version": STRING, "endpoints": {"type": "object"}}
    listed = {"type": "array", "items": {"type": "object", "properties": properties}}
    return {"type": "object", "properties": {"attributes": listed}}


def _open_paths() -> Json:
    summaries = {
        "/.well-known/oauth-protected-resource": "How to get a token for this resource (RFC 9728)",
        "/health/live": "The process answers",
        "/health/ready": "Models are loaded, keys and revocations are known",
        "/metrics": "Prometheus metrics (loopback and configured networks)",
        "/openapi.json": "This document",
        "/docs": "This document for people",
    }
    return {
        path: {"get": {"summary": summary, "security": [], "responses": {"200": {"description": "OK"}}}}
        for path, summary in summaries.items()
    }


def _get(summary: str, description: str, schema: Json) -> Json:
    return {"get": {"summary": summary, "responses": _responses(_json_response(description, schema), _PROTECTED)}}


def _post(summary: str, scopes: list[str], body: Json, answer: Json, example: Json | None) -> Json:
    content: Json = {"schema": body} if example is None else {"schema": body, "example": example}
    return {
        "post": {
            "summary": summary,
            "security": [{"oauth2": scopes}],
            "requestBody": {"required": True, "content": {"application/json": content}},
            "responses": _responses(
                _json_response("The answer", answer) | _headers("RateLimit-Policy", "RateLimit"),
                (*_PROTECTED, *_SENT),
            ),
        }
    }


def _json_response(description: str, schema: Json) -> Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _responses(answer: Json, codes: Iterable[str]) -> Json:
    problems = {str(CATALOGUE[code].status): {"$ref": f"#/components/responses/{code}"} for code in codes}
    return {"200": answer, **problems, "503": {"$ref": "#/components/responses/unavailable"}}


def _problem_response(code: str) -> Json:
    limited = ("RateLimit-Policy", "RateLimit", "Retry-After") if code == "too_many_requests" else ()
    return _json_response(CATALOGUE[code].title, _ref("Problem")) | _headers(*limited)


def _unavailable() -> Json:
    described = "; ".join(CATALOGUE[code].title for code in _UNAVAILABLE)
    return {"unavailable": _json_response(described, _ref("Problem")) | _headers("Retry-After")}


def _headers(*names: str) -> Json:
    return {"headers": {name: {"$ref": f"#/components/headers/{name}"} for name in names}} if names else {}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}
