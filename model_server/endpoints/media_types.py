"""Which bodies an endpoint takes: JSON as it is, or NDJSON where it streams."""

from starlette.types import Scope

from shared.errors import AppError

JSON = b"application/json"
NDJSON = b"application/x-ndjson"


def require_json(scope: Scope) -> None:
    """Raise AppError ``unsupported_media_type`` unless the body is plain JSON; no Content-Type counts as JSON."""
    if body_type(scope) not in {JSON, b""}:
        raise AppError("unsupported_media_type", "Send application/json, uncompressed.")


def wants_ndjson(scope: Scope) -> bool:
    """Tell whether the body is NDJSON; False for JSON, AppError ``unsupported_media_type`` for anything else."""
    media_type = body_type(scope)
    if media_type not in {JSON, NDJSON, b""}:
        raise AppError("unsupported_media_type", "Send application/json or application/x-ndjson, uncompressed.")
    return media_type == NDJSON


def body_type(scope: Scope) -> bytes:
    """Give the media type of the body in lower case without parameters, empty if none was named.

    Raises AppError ``unsupported_media_type`` for a content coding, a repeated type, or a charset other than UTF-8.
    """
    named: bytes | None = None
    for name, value in scope["headers"]:
        if name == b"content-type":
            if named is not None:
                raise AppError("unsupported_media_type", "Send one Content-Type.")
            named = value
        elif name == b"content-encoding" and value.strip().lower() not in {b"", b"identity"}:
            raise AppError("unsupported_media_type", "Send the body uncompressed.")
    if named is None or named == JSON:
        return named or b""
    media_type, _, parameters = named.partition(b";")
    charset = parameters.replace(b'"', b"").replace(b" ", b"").lower()
    if charset.startswith(b"charset=") and charset != b"charset=utf-8":
        raise AppError("unsupported_media_type", "Send JSON in UTF-8.")
    return bytes(media_type).strip().lower()
