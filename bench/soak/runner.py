"""One soak from start to end."""

import asyncio
import contextlib
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.instance import ROOT, Credentials
from bench.soak import site as sites
from bench.soak.callers import ATTRIBUTE, PATH, SCOPE, GoodCallers
from bench.soak.faults import QUICK, Faults, Plan
from bench.soak.issuer import Issuer
from bench.soak.lines import Line, open_lines, watch_staleness
from bench.soak.options import Options
from bench.soak.policy import Flip, Policy
from bench.soak.results import Soak, latency_figures
from bench.soak.revoking import Revoking
from bench.soak.rotations import Rotations
from bench.soak.site import TOKEN_LIFE_S, Site
from bench.soak.timeline import Timeline
from bench.soak.trials import Trials
from bench.traffic import Row, attributes, rows
from flex_client import ClientCredentials

N_CLIENTS = 24  # so many that each key has signed the tokens of some
LONG_LIFE_S = 900
LIMITED = "a"
"""The host that is cut off at the end; all outages before are shorter than its limit."""
CUT_OFF_S, QUICK_CUT_OFF_S = 40, 7
KINDS = ("jti", "client", "subject")
TRIAL_PAUSE_S = 1.0
GHOSTS_PER_S = 5.0
WARM_UP_S = 3.0
_FAULTY = ('"event":"process_crashed"', '"event":"internal_error"', "Traceback (most recent call last)")
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Cast:
    """Everybody who acts in a run."""

    site: Site
    timeline: Timeline
    lines: list[Line]
    callers: GoodCallers
    trials: Trials
    revoking: Revoking
    burners: dict[str, Credentials]
    rotations: Rotations
    faults: Faults
    issuer: Issuer


async def soak(options: Options, tell: Tell) -> Soak:
    """Run the soak. Raises NotReadyError, NotCovered or TimeoutError when the installation does not come up."""
    faketime = sites.find_faketime(options.faketime)
    # A clock that is ahead makes everything look staler than it is.
    limit_s = (QUICK_CUT_OFF_S if options.quick else CUT_OFF_S) + (sites.CLOCKS[LIMITED] if faketime else 0)
    with tempfile.TemporaryDirectory(prefix="flex-soak-", ignore_cleanup_errors=True) as folder:
        running = sites.running(Path(folder), faketime=faketime, staleness_limits={LIMITED: limit_s})
        tell("starting store, auth server and two hosts")
        async with running as site, _cast(site, options) as cast:
            async with _watched(cast):
                await _play(cast, options, tell)
                flips = await _cut_off(cast, limit_s, tell)
            return _outcome(cast, options, flips)


@contextlib.asynccontextmanager
async def _watched(cast: _Cast) -> AsyncIterator[None]:
    """Ask all workers how old their revocations are while the block runs."""
    stop = asyncio.Event()
    watching = asyncio.create_task(watch_staleness(cast.lines, cast.timeline, stop))
    try:
        yield
    finally:
        stop.set()
        await watching


@contextlib.asynccontextmanager
async def _cast(site: Site, options: Options) -> AsyncIterator[_Cast]:
    timeline, features = Timeline(), _rows()
    good = await site.make_clients([f"good {n}" for n in range(N_CLIENTS)], scope=SCOPE, life_s=TOKEN_LIFE_S)
    burners = await site.make_clients(list(KINDS), scope=SCOPE, life_s=LONG_LIFE_S)
    witness, manager = await site.make_clients(
        ["witness", "manager"], scope=f"{SCOPE} tokens:revoke keys:manage", life_s=LONG_LIFE_S
    )
    lines, issuer = await open_lines(site), Issuer(site, manager)
    trials = Trials(lines, timeline, PATH, features)
    try:
        yield _Cast(
            site=site,
            timeline=timeline,
            lines=lines,
            callers=GoodCallers(site, timeline, _credentials(site, good), features, options.rate),
            trials=trials,
            revoking=Revoking(issuer, trials, timeline, SCOPE),
            burners=dict(zip(KINDS, burners, strict=True)),
            rotations=Rotations(site, timeline, trials, issuer, witness, SCOPE, options.rotations, options.emergencies),
            faults=Faults(site, timeline, QUICK if options.quick else Plan(), options.seed),
            issuer=issuer,
        )
    finally:
        issuer.close()
        for line in lines:
            line.connection.close()


def _rows() -> list[Row]:
    (attribute,) = [one for one in attributes(ROOT / "models") if one.id == ATTRIBUTE]
    return rows(attribute.columns, 997, seed=3)


def _credentials(site: Site, clients: list[Credentials]) -> list[ClientCredentials]:
    endpoint = f"http://127.0.0.1:{site.auth_port}/oauth2/token"
    return [
        ClientCredentials(endpoint, one.client_id, one.client_secret, scope=SCOPE, resource=sites.RESOURCE)
        for one in clients
    ]


async def _play(cast: _Cast, options: Options, tell: Tell) -> None:
    """Let everybody act; faults and trials end first, good callers last."""
    breaking, calling = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(cast.callers.run(calling))
        await asyncio.sleep(WARM_UP_S)
        acting = [group.create_task(act) for act in _acts(cast, breaking)]
        await _until_done(cast, options, tell)
        breaking.set()
        tell("everything is whole again; the last calls and trials end")
        await asyncio.wait(acting)
        await cast.trials.finish()
        await asyncio.sleep(1.0)
        calling.set()


def _acts(cast: _Cast, stop: asyncio.Event) -> list[Coroutine[Any, Any, None]]:
    acts: list[Coroutine[Any, Any, None]] = [
        cast.faults.run(stop),
        cast.rotations.run(stop),
        cast.trials.haunt(stop, GHOSTS_PER_S),
    ]
    acts += [cast.revoking.run(kind, cast.burners[kind], stop, pause_s=TRIAL_PAUSE_S) for kind in KINDS]
    return acts


async def _until_done(cast: _Cast, options: Options, tell: Tell) -> None:
    while True:
        now, rotations, outcomes = cast.timeline.now(), cast.rotations, cast.timeline.outcomes
        done = now >= options.seconds and rotations.done
        if done or now >= options.longest_s:
            return
        tell(
            f"{now:4.0f} of {options.seconds:.0f} s · {outcomes['ok']:,} good calls, {outcomes['recovered']} retried, "
            f"{outcomes['failed']} failed · {len(cast.trials.reaches) // len(cast.lines)} revocations, "
            f"{sum(one.late for one in cast.trials.reaches)} late · rotations {rotations.planned} of "
            f"{options.rotations}, emergencies {rotations.emergencies} of {options.emergencies} · "
            f"{sum(cast.faults.counts.values())} faults"
        )
        await asyncio.sleep(1.0)


async def _cut_off(cast: _Cast, limit_s: int, tell: Tell) -> list[Flip]:
    tell("cutting one host off beyond its staleness limit")
    token = await cast.issuer.token(cast.rotations.witness, SCOPE)
    policy = Policy(cast.site, cast.timeline, cast.lines, cast.trials.request(token))
    return await policy.check(LIMITED, limit_s)


def _outcome(cast: _Cast, options: Options, flips: list[Flip]) -> Soak:
    timeline, rotations = cast.timeline, cast.rotations
    return Soak(
        outcomes=dict(timeline.outcomes),
        latency_ms=latency_figures(timeline.latencies()),
        failures=timeline.failures,
        reaches=cast.trials.settled(),
        n_trials_unacknowledged=cast.revoking.n_unacknowledged,
        n_ghost_calls=cast.trials.n_ghost_calls,
        planned=rotations.planned,
        emergencies=rotations.emergencies,
        dropped=rotations.dropped,
        wanted=(options.rotations, options.emergencies),
        faults=dict(cast.faults.counts),
        flips=flips,
        server_faults=server_faults(cast.site),
        outages=timeline.outages,
        marks=timeline.marks,
        seconds=timeline.seconds(),
        staleness=timeline.staleness,
    )


def server_faults(site: Site) -> list[str]:
    """Lines of the servers' logs that tell of a crash or of an error of their own."""
    return [
        f"{name}: {_short(line)}"
        for name, path in site.logs().items()
        for line in path.read_text(errors="replace").splitlines()
        if any(sign in line for sign in _FAULTY)
    ]


def _short(line: str) -> str:
    try:
        fields = json.loads(line)
    except ValueError:
        return line[:200]
    return json.dumps({name: value for name, value in fields.items() if name != "ts"})[:200]
