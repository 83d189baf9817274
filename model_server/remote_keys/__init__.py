"""The issuer's public keys, followed in the background so that no request ever waits for them.

``follower`` keeps the set and decides when to ask again, ``fetch`` asks once, ``last_good`` keeps the answer on disk.
"""

from model_server.remote_keys.follower import KeyRing, RemoteKeys

__all__ = ["KeyRing", "RemoteKeys"]
