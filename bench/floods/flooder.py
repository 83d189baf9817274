"""One flood, in a process of its own: ``python -m bench.floods.flooder PORT SOURCE KIND COUNT SECONDS``.

Reads a good token and the path from standard input, sends ``COUNT`` bad tokens (or for ``SECONDS``, what ends first)
as fast as they are answered over some connections, and prints what came back as JSON.
"""

import asyncio
import sys
import time
from collections import Counter

import msgspec

from bench.floods.bad_tokens import KINDS
from bench.soak.wire import CallBroken, connect
from bench.traffic import json_request

CONNECTIONS = 16


class Flooded(msgspec.Struct, frozen=True):
    """Answers by status; ``broken`` counts calls that got none."""

    n: int
    seconds: float
    statuses: dict[str, int]
    broken: int


async def flood(port: int, source: str, kind: str, *, count: int, seconds: float, good: str, path: str) -> Flooded:
    """Send bad tokens; a connection that is closed is made again."""
    make, statuses, began = KINDS[kind], Counter[str](), time.monotonic()
    left, broken = count, 0

    async def one_connection() -> None:
        nonlocal left, broken
        connection = await connect(port, source=source)
        while left > 0 and time.monotonic() - began < seconds:
            left -= 1
            try:
                if not connection.open:
                    connection = await connect(port, source=source)
                answer = await connection.ask(json_request(path, make(good), {"features": {}}))
                statuses[str(answer.status)] += 1
            except CallBroken:
                broken += 1
        connection.close()

    await asyncio.gather(*(one_connection() for _ in range(CONNECTIONS)))
    return Flooded(sum(statuses.values()), round(time.monotonic() - began, 2), dict(statuses), broken)


def main(arguments: list[str]) -> None:
    """Run the command line."""
    import uvloop  # noqa: PLC0415 - the tests of the parts above need no uvloop

    port, source, kind, count, seconds = arguments
    good, path = sys.stdin.read().split()
    done = uvloop.run(flood(int(port), source, kind, count=int(count), seconds=float(seconds), good=good, path=path))
    print(msgspec.json.encode(done).decode())


if __name__ == "__main__":
    main(sys.argv[1:])
