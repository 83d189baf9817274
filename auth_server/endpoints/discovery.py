"""The JWKS (RFC 7517) and the server's metadata (RFC 8414)."""

import msgspec

from auth_server.endpoints.documents import Document, DocumentEndpoint, document
from auth_server.keyring.signer import Signer
from auth_server.oauth.metadata import metadata
from auth_server.settings import AuthSettings


def cache_control(settings: AuthSettings) -> bytes:
    """How long verifiers may keep what this server publishes about itself."""
    return b"public, max-age=%d, stale-while-revalidate=%d" % (settings.jwks_max_age_s, settings.jwks_stale_s)


def jwks_endpoint(signer: Signer, settings: AuthSettings) -> DocumentEndpoint:
    """Serve the public keys: standby, active and retired ones."""

    def current() -> Document:
        published = signer.jwks()
        return Document(published.body, published.etag.encode())

    return DocumentEndpoint(current, cache_control=cache_control(settings))


def metadata_endpoint(settings: AuthSettings) -> DocumentEndpoint:
    """Serve the metadata, which stays the same while the process lives."""
    described = document(msgspec.json.encode(metadata(settings.issuer)))
    return DocumentEndpoint(lambda: described, cache_control=cache_control(settings))
