"""The issuer's public keys, followed in the background so that no request ever waits for them.

``follower`` keeps the set and decides when to ask again, ``fetch`` asks once, ``last_good`` keeps the answer on disk,
``vanished`` says for how long a key is kept that the set no longer has.
"""

from model_server.remote_keys.follower import KeyRing, RemoteKeys
from model_server.remote_keys.vanished import KeyFeed

__all__ = ["KeyFeed", "KeyRing", "RemoteKeys"]
