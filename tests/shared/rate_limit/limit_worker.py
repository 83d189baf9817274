"""A worker process for the tests: attaches to a store and makes the calls that it is told to on standard input.

Arguments: the var folder and the number of workers. Each line ``<calls> <at once: 0 or 1>`` is answered by one line
``<admitted> <store calls so far>``; the end of the input ends it.
"""

import asyncio
import sys
from pathlib import Path

from shared import store as stores
from shared.rate_limit.gcra import Limit
from shared.rate_limit.lease import Admission
from shared.rate_limit.leases import Limiter
from shared.rate_limit.limits import LimitKey
from shared.settings import Settings


async def main(var_dir: str, n_workers: int) -> None:
    """Obey until the input ends."""
    client = stores.connect(Settings(var_dir=Path(var_dir)), timeout_s=20)
    async with Limiter(client, n_workers=n_workers, ask_timeout_s=20) as limiter:
        key_set = limiter.key_set([LimitKey("client:p", Limit(100, 3600))])

        async def call() -> bool:
            return isinstance(limiter.admit(key_set) or await limiter.acquire(key_set), Admission)

        while line := await asyncio.to_thread(sys.stdin.readline):
            n_calls, at_once = map(int, line.split())
            if at_once:
                answers = await asyncio.gather(*(call() for _ in range(n_calls)))
            else:
                answers = [await call() for _ in range(n_calls)]
            print(sum(answers), limiter.n_store_calls, flush=True)
    await stores.close(client)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
