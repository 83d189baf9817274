"""What a run found, and whether it held."""

import statistics
from collections.abc import Iterable

import msgspec

from bench.floods.runner import MAX_GROWTH_MIB, Floods
from bench.soak.disconnects import DisconnectProof
from bench.soak.policy import Flip
from bench.soak.timeline import BOUND_S, Failure, Mark, Outage, Second, Staleness
from bench.soak.trials import Reach
from bench.spread import percentile


class About(msgspec.Struct, frozen=True):
    """Under what conditions a run was made."""

    date: str
    machine: str
    seconds: float
    rate: float
    clients: int
    clocks: dict[str, int]
    quick: bool
    seed: int


class Soak(msgspec.Struct, frozen=True):
    """Everything that the soak saw; times are seconds since its start."""

    outcomes: dict[str, int]
    latency_ms: dict[str, float]
    failures: list[Failure]
    reaches: list[Reach]
    n_trials_unacknowledged: int
    n_ghost_calls: int
    planned: int
    emergencies: int
    dropped: int
    wanted: tuple[int, int]
    faults: dict[str, int]
    flips: list[Flip]
    server_faults: list[str]
    outages: list[Outage]
    marks: list[Mark]
    seconds: list[Second]
    staleness: list[Staleness]


class Results(msgspec.Struct, frozen=True):
    """A whole run; a part that was not asked for is None."""

    about: About
    soak: Soak | None = None
    disconnects: DisconnectProof | None = None
    floods: Floods | None = None


class Check(msgspec.Struct, frozen=True):
    """One promise and whether it held; ``found`` says what was measured."""

    promise: str
    held: bool
    found: str


def latency_figures(latencies: list[float]) -> dict[str, float]:
    """Middle and tail of latencies in milliseconds; empty without any."""
    if not latencies:
        return {}
    shares = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
    return {name: round(percentile(latencies, share), 2) for name, share in shares.items()} | {
        "max": round(max(latencies), 1)
    }


def reach_figures(reaches: Iterable[Reach]) -> tuple[float, float, float] | None:
    """Median, p99 and longest reach in milliseconds; None without any."""
    found = [one.reach_s * 1000 for one in reaches]
    return (statistics.median(found), percentile(found, 0.99), max(found)) if found else None


def by_disturbance(soak: Soak) -> dict[str, list[Reach]]:
    """The trials' reaches: while nothing was broken, during other faults, and where an outage moved the bound."""
    broken = [(mark.at - BOUND_S, (mark.until or mark.at) + BOUND_S) for mark in soak.marks if mark.kind == "fault"]
    found: dict[str, list[Reach]] = {"nothing is broken": [], "something is": [], "an outage moves the bound": []}
    quiet, faulty, cut_off = found.values()
    for one in soak.reaches:
        if one.kind == "ghost":
            continue
        if one.due > one.acked_at + BOUND_S + 1e-6:
            cut_off.append(one)
        else:
            (faulty if any(began <= one.acked_at <= ended for began, ended in broken) else quiet).append(one)
    return found


def checks(results: Results) -> list[Check]:
    """Judge every promise of the parts that were run."""
    found: list[Check] = []
    if results.soak is not None:
        found += soak_checks(results.soak)
    if results.disconnects is not None:
        proof = results.disconnects
        told = (
            f"{proof.missed} missed, {proof.extra} too many; {proof.n_revocations:,} revocations, "
            f"{proof.n_disconnects:,} disconnects, {proof.n_restarts} restarts of the store"
        )
        found.append(Check("no revocation missed over disconnects and restarts", proof.held, told))
    if results.floods is not None:
        found += flood_checks(results.floods)
    return found


def flood_checks(floods: Floods) -> list[Check]:
    """Judge the floods. How slow good calls get is told, not judged: it depends on who else is on the machine."""
    every, sent = floods.floods, sum(flood.n for flood in floods.floods)
    wrong = {flood.kind: flood.wrong for flood in every if flood.wrong or flood.broken}
    failed = {flood.kind: flood.good_failed for flood in every if flood.good_failed}
    growth_mib = max(flood.rss_mib for flood in every) - floods.rss_mib
    return [
        Check(
            "a flood makes at most one fetch of the keys in 30 s",
            floods.fetches <= floods.allowed_fetches,
            f"{floods.fetches} in {floods.seconds:.0f} s",
        ),
        Check(
            "bad tokens get 401, 429 or 503", not wrong and sent > 0, f"{sent:,} bad tokens; others: {wrong or 'none'}"
        ),
        Check("good calls beside a flood are answered", not failed, f"failed: {failed or 'none'}"),
        Check(
            "memory stays flat in a flood",
            growth_mib <= MAX_GROWTH_MIB,
            f"{growth_mib:+.1f} MiB on {floods.rss_mib:.1f}; at most {MAX_GROWTH_MIB:g}",
        ),
    ]


def soak_checks(soak: Soak) -> list[Check]:
    """Judge the soak."""
    good, recovered, failed = (soak.outcomes.get(name, 0) for name in ("ok", "recovered", "failed"))
    late = [one for one in soak.reaches if one.late]
    n_trials = len({(one.kind, one.acked_at) for one in soak.reaches if one.kind != "ghost"})
    planned, emergencies = soak.wanted
    return [
        Check(
            "no call by a good token fails",
            failed == 0 and good > 0,
            f"{failed} of {good + recovered + failed:,} failed; {recovered} needed the one retry after an emergency",
        ),
        Check(
            "no revoked token is served after the bound",
            not late and n_trials > 0,
            f"{len(late)} late; {n_trials:,} revocations at each worker, {soak.n_ghost_calls:,} calls with dead tokens",
        ),
        Check(
            "every revocation is acknowledged in the end",
            soak.n_trials_unacknowledged == 0,
            f"{soak.n_trials_unacknowledged} were not",
        ),
        Check("all planned rotations are done", soak.planned >= planned, f"{soak.planned} of {planned}"),
        Check(
            "all emergency rotations are done", soak.emergencies >= emergencies, f"{soak.emergencies} of {emergencies}"
        ),
        Check(
            "a host that is cut off refuses at its limit, with 503",
            bool(soak.flips) and all(flip.held for flip in soak.flips),
            "; ".join(_told(flip) for flip in soak.flips) or "not tried",
        ),
        Check("no server crashes or breaks", not soak.server_faults, f"{len(soak.server_faults)} lines say so"),
    ]


def _told(flip: Flip) -> str:
    after = "never" if flip.refused_after_s is None else f"after {flip.refused_after_s:.1f} s"
    again = "not again" if flip.served_again_after_s is None else f"again after {flip.served_again_after_s:.2f} s"
    odd = f", other statuses {sorted(set(flip.others))}" if flip.others else ""
    return f"{flip.host}/{flip.worker} {after} (limit {flip.expected_s:g} s by its clock), {again}{odd}"
