"""Limit (a): how many RSA-2048 signatures one core makes in a second, through the library that the auth server uses.

Run as ``python -m bench.signing SECONDS`` on the servers' core; prints the rate.
"""

import sys
import time

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

TOKEN_BYTES = 560
"""Size of what is signed for one of our tokens: encoded header, dot, encoded claims."""


def signatures_per_second(seconds: float) -> float:
    """Sign messages of a token's size, each different, for about ``seconds``."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    scheme, digest = padding.PKCS1v15(), SHA256()
    key.sign(b"warm", scheme, digest)
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        for _ in range(16):
            key.sign(b"%0*d" % (TOKEN_BYTES, count), scheme, digest)
            count += 1
    return count / (time.perf_counter() - started)


if __name__ == "__main__":
    print(signatures_per_second(float(sys.argv[1])))
