"""The auth server: authenticates clients, issues RS256 access tokens (RFC 9068), publishes the keys to them.

``app`` wires everything; a request goes ``endpoints`` → ``stores`` (load) → ``oauth`` (decide, Authlib) → ``keyring``
(sign). A token costs no row in the store.
"""
