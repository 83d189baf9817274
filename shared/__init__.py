"""What the two servers agree on, and nothing else.

Errors, scopes, access tokens, events, settings, the HTTP edge and the store connection live here.
This package imports neither server.
"""
