"""The flood room: one model server under tokens that are no good, and what its good callers notice of them.

Three floods, one after the other, from another network of the loopback: distinct unknown kids, bad signatures, tokens
that are too long. The server must ask its issuer for keys at most once in 30 s, answer nothing but 401, 429 and 503,
and need no more memory than before.
"""
