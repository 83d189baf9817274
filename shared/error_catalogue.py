"""The catalogue of everything that can go wrong: one row a code. ``docs/errors.md`` is generated from it.

Long because it is a table; there is no logic here.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """One row of the catalogue: what the caller sees, and what causes and cures it."""

    code: str
    status: int
    title: str
    detail: str
    cause: str
    cure: str


_KINDS = (
    ErrorKind(
        "invalid_request",
        400,
        "Invalid request",
        "The request is not formed as this endpoint needs it.",
        "A parameter is missing, repeated, too long or in the wrong place.",
        "Read the detail; correct the request.",
    ),
    ErrorKind(
        "malformed_json",
        400,
        "Malformed JSON",
        "The body is not a JSON document that this endpoint accepts.",
        "Not JSON, not UTF-8, nested deeper than 8 levels, or NaN/Infinity as a number.",
        "Send plain JSON; use null for a missing answer.",
    ),
    ErrorKind(
        "unauthenticated",
        401,
        "Authentication required",
        "Send a bearer token in the Authorization header.",
        "No token came with the call.",
        "Get a token at the token endpoint and send it as 'Authorization: Bearer …'.",
    ),
    ErrorKind(
        "invalid_token",
        401,
        "Invalid token",
        "The access token is not valid for this service.",
        "Malformed, expired, wrongly signed, for another issuer or audience, or revoked; the audit log says which.",
        "Get a new token and try once more.",
    ),
    ErrorKind(
        "insufficient_scope",
        403,
        "Insufficient scope",
        "The token lacks a scope that this call needs.",
        "The client was not granted the scope, or did not ask for it.",
        "Request the scopes named in WWW-Authenticate.",
    ),
    ErrorKind(
        "forbidden",
        403,
        "Forbidden",
        "This address may not call this endpoint.",
        "Metrics answer only the loopback and configured networks.",
        "Call from an allowed network.",
    ),
    ErrorKind(
        "not_found",
        404,
        "Not found",
        "There is nothing here that this token may see.",
        "The path or the attribute does not exist, or the token has no scope for it.",
        "List what you may use at /v1/attributes.",
    ),
    ErrorKind(
        "method_not_allowed",
        405,
        "Method not allowed",
        "This address exists, but not for this method.",
        "For example GET on the token endpoint.",
        "Use a method named in the Allow header.",
    ),
    ErrorKind(
        "request_timeout",
        408,
        "Request time-out",
        "The request did not arrive in time.",
        "Headers or body came too slowly.",
        "Send the request without pauses.",
    ),
    ErrorKind(
        "conflict",
        409,
        "Conflict",
        "The state does not allow this now.",
        "For example a standby key that is still too young to sign.",
        "Read the detail; it names what is missing and when it will be there.",
    ),
    ErrorKind(
        "payload_too_large",
        413,
        "Body too large",
        "The body is larger than this endpoint takes.",
        "More bytes or more records than the limit.",
        "Split the batch, or stream it as NDJSON.",
    ),
    ErrorKind(
        "uri_too_long",
        414,
        "URI too long",
        "The request target is longer than 8 KiB.",
        "Data was put into the URL.",
        "Send data in the body.",
    ),
    ErrorKind(
        "unsupported_media_type",
        415,
        "Unsupported media type",
        "This endpoint does not take that content type.",
        "The Content-Type header names another format, or the body is compressed.",
        "Send the content type named in the detail, uncompressed.",
    ),
    ErrorKind(
        "invalid_record",
        422,
        "Invalid record",
        "The record has fields that this attribute can't take.",
        "A value of the wrong type or outside its range, or a required answer is missing.",
        "See 'errors': one entry for each field.",
    ),
    ErrorKind(
        "too_many_requests",
        429,
        "Too many requests",
        "The caller's budget is used up.",
        "More calls or rows than a limit of this client, or too many refused tokens or logins from its network.",
        "Wait as long as Retry-After says.",
    ),
    ErrorKind(
        "headers_too_large",
        431,
        "Headers too large",
        "The header section is larger than 16 KiB or has over 100 fields.",
        "An oversized token or cookie.",
        "Send smaller headers.",
    ),
    ErrorKind(
        "internal_error",
        500,
        "Internal error",
        "Something went wrong here; the request id finds it in our log.",
        "A defect of this server.",
        "Report the request id.",
    ),
    ErrorKind(
        "keys_unavailable",
        503,
        "Keys unavailable",
        "The issuer's keys can't be fetched and none are held.",
        "The auth server was never reached since this server's first start.",
        "Try again as Retry-After says; check FLEX_ISSUER.",
    ),
    ErrorKind(
        "overloaded",
        503,
        "Overloaded",
        "The server has more work than it can finish in time.",
        "A bounded queue is full.",
        "Try again as Retry-After says.",
    ),
    ErrorKind(
        "store_unavailable",
        503,
        "Store unavailable",
        "The store does not answer.",
        "Valkey or Redis is down, slow or full.",
        "Try again as Retry-After says.",
    ),
    ErrorKind(
        "revocations_stale",
        503,
        "Revocations unknown",
        "This server does not know the latest revocations and serves no token until it does.",
        "The revocation feed was not heard for longer than FLEX_REQUIRE_FRESH_REVOCATIONS_S; the header "
        "Flex-Revocation-Staleness says for how many seconds.",
        "Try again as Retry-After says, with the same token; check the store and the auth server.",
    ),
    ErrorKind(
        "not_ready",
        503,
        "Not ready",
        "The server is starting or stopping.",
        "Keys or models are not loaded yet.",
        "Try again as Retry-After says.",
    ),
    # RFC 6749 section 5.2, RFC 8707 section 2: the token endpoint's own words.
    ErrorKind(
        "invalid_client",
        401,
        "Invalid client",
        "Client authentication failed.",
        "Unknown client, wrong secret, disabled client or a method the client may not use: one answer for all.",
        "Check the client id and secret; rotate the secret if it is lost.",
    ),
    ErrorKind(
        "invalid_grant",
        400,
        "Invalid grant",
        "The grant is not valid.",
        "A used, expired or foreign code or token.",
        "Start the flow again.",
    ),
    ErrorKind(
        "unauthorized_client",
        400,
        "Unauthorized client",
        "The client may not do this.",
        "The grant type is not among the client's; or the token to revoke was issued to another client.",
        "Use another client; have the grant type, or the scope tokens:revoke, added.",
    ),
    ErrorKind(
        "unsupported_grant_type",
        400,
        "Unsupported grant type",
        "This server does not know that grant type.",
        "A misspelt or not offered grant_type.",
        "See grant_types_supported in the metadata.",
    ),
    ErrorKind(
        "invalid_scope",
        400,
        "Invalid scope",
        "The requested scope is malformed, unknown or not granted to the client.",
        "A scope beyond what the client was given.",
        "Ask for less, or have the scope granted.",
    ),
    ErrorKind(
        "invalid_authorization_details",
        400,
        "Invalid authorization details",
        "The requested authorization_details are malformed, of an unknown type, or more than the client may have.",
        "Another type than model_call, a member too many or too few, or a budget beyond the client's (RFC 9396).",
        "Ask for less, or leave the parameter away to get all the client has.",
    ),
    ErrorKind(
        "invalid_target",
        400,
        "Invalid target",
        "The requested resource is malformed, unknown or not granted to the client.",
        "A resource that the client may not call (RFC 8707).",
        "Use the model server's resource indicator.",
    ),
    ErrorKind(
        "server_error",
        500,
        "Server error",
        "Something went wrong here; the request id finds it in our log.",
        "A defect of this server.",
        "Report the request id.",
    ),
    ErrorKind(
        "temporarily_unavailable",
        503,
        "Temporarily unavailable",
        "The server can't issue tokens right now.",
        "Overload, or the store is away.",
        "Try again as Retry-After says.",
    ),
)

CATALOGUE: dict[str, ErrorKind] = {kind.code: kind for kind in _KINDS}
"""Every code that can reach a caller, by code."""
