"""Parts of one request, timed in process, each with rows and tokens that vary.

Run as ``python -m bench.micro PLAN`` on the servers' core; prints one JSON object: microseconds by part, a list each
(one value a repetition). Nothing is switched off: these are the functions that the servers call.
"""

import itertools
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec

from bench.traffic import attributes, record, rows
from model_server.accounts import Accounts
from model_server.attribute import open_attribute
from model_server.bearer import Bearer
from model_server.bundles import load_bundle
from model_server.metering import Meter
from model_server.revocations import Revocations
from model_server.scoring import score
from shared.access_token import AccessToken, StaticKeySet, parse_key_set, verify_access_token
from shared.rate_limit.gcra import Limit
from shared.rate_limit.leases import Limiter
from shared.rate_limit.networks import NetworkLimiter
from shared.rate_limit.store_loss import ALONE
from shared.revocations.entries import Entry, Kind, marks

REPEATS = 15
N_ROWS = 1021
N_LIVE = 1_000_000


class MicroPlan(msgspec.Struct, frozen=True):
    """Real tokens of a real issuer, its published keys, and what they are checked against."""

    attribute: str
    models_dir: str
    issuer: str
    audience: str
    jwks: str
    tokens: list[str]


def microseconds(call: Callable[[Any], object], arguments: Iterator[Any], count: int) -> float:
    """Mean time of one call over ``count`` calls, each with the next argument; the loop itself is taken off."""
    batch = list(itertools.islice(arguments, count))
    started = time.perf_counter()
    for _argument in batch:
        pass
    empty = time.perf_counter() - started
    started = time.perf_counter()
    for argument in batch:
        call(argument)
    return (time.perf_counter() - started - empty) / count * 1e6


def parts(plan: MicroPlan) -> dict[str, tuple[Callable[[Any], object], Iterator[Any], int]]:
    """Give the timed parts: what is called, with which arguments, how often."""
    keys = StaticKeySet(parse_key_set(plan.jwks.encode(), plan.issuer))
    clock = time.time
    shipped = next(one for one in attributes(Path(plan.models_dir)) if one.id == plan.attribute)
    attribute = open_attribute(load_bundle(shipped.folder))
    revocations = _revocations(clock)
    # Two of them: the one that always forgets would leave the other nothing to remember.
    warm, cold = (
        Bearer(
            keys,
            issuer=plan.issuer,
            audience=plan.audience,
            attributes=[plan.attribute],
            accounts=Accounts(Limiter(None, n_workers=1, policy=ALONE), Meter(clock), calls_per_hour=1_000_000),
            networks=NetworkLimiter(Limit(1_000_000, 60), clock=time.monotonic),
            clock=clock,
            revocations=revocations,
        )
        for _ in range(2)
    )
    scopes = [{"headers": [(b"host", b"127.0.0.1"), (b"authorization", b"Bearer " + t.encode())]} for t in plan.tokens]
    bodies = [msgspec.json.encode(record(n, row)) for n, row in enumerate(rows(shipped.columns, N_ROWS, seed=3))]
    decoded = [attribute.decoder.decode(body) for body in bodies]
    answers = [score(attribute, one) for one in decoded]
    tokens = [token.encode() for token in plan.tokens]

    def verify(token: bytes) -> AccessToken:
        return verify_access_token(token, keys, issuer=plan.issuer, audience=plan.audience, now=clock())

    def authenticate_cold(scope: Any) -> object:
        cold.forget()
        return cold.authenticate(scope)

    all_marks = [marks(verify(token)) for token in tokens]
    predict, encode, cycle = attribute.model.predict_one, msgspec.json.Encoder().encode, itertools.cycle
    return {
        "memo hit": (warm.authenticate, cycle(scopes), 5_000),
        "cold verification": (authenticate_cold, cycle(scopes), 600),
        "cold verification, token alone": (verify, cycle(tokens), 600),
        "revocation check": (lambda one: revocations.check(one, clock()), cycle(all_marks), 5_000),
        "body to record": (attribute.decoder.decode, cycle(bodies), 5_000),
        "trees, one row": (predict, cycle([one.values for one in decoded]), 3_000),
        "record to answer, trees included": (lambda one: score(attribute, one), cycle(decoded), 3_000),
        "answer to bytes": (encode, cycle(answers), 5_000),
    }


def _revocations(clock: Callable[[], float]) -> Revocations:
    """Give what bearer asks for every call, with a million other tokens revoked and a feed that is fresh."""
    revocations = Revocations(limit_s=900, snapshot=Path("none"), clock=clock)
    for number in range(N_LIVE):
        key = number.to_bytes(16, "little")
        revocations.revoked.apply(Entry(Kind.TOKEN, number, b"", 0, round(clock() + 3600) * 1000, key, b""))
    # As if a follower had just heard a heartbeat, and went on hearing.
    cast("Any", revocations)._follower = SimpleNamespace(as_of_ms=(clock() + 3600) * 1000)  # noqa: SLF001
    return revocations


def main(plan_file: Path) -> None:
    """Time every part in interleaved repetitions and print the figures."""
    plan = msgspec.json.decode(plan_file.read_bytes(), type=MicroPlan)
    timed = parts(plan)
    figures: dict[str, list[float]] = {name: [] for name in timed}
    for call, arguments, count in timed.values():
        microseconds(call, arguments, count // 4)
    for _ in range(REPEATS):
        for name, (call, arguments, count) in timed.items():
            figures[name].append(microseconds(call, arguments, count))
    print(msgspec.json.encode(figures).decode())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
