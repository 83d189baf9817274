"""The soak room: the whole installation under faults, held to what it promises (``python -m bench.soak``).

Two hosts of model servers, an auth server and a store, all on the loopback and all thrown away afterwards, with proxies
between them that can cut, delay or silence every way. While good callers call at a fixed rate, keys are rotated,
tokens are revoked and things break; the run succeeds only if no good call failed and no revoked token was served late.
"""
