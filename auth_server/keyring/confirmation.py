"""Whether every verifier holds a key: what an activation rests on besides the key's age. Pure decisions.

A verifier is live if it reported within ``shared.verifiers.LIVE_S``. A live one must have proved the key. A silent one
may still serve with an old key set, so it must have proved the key, too, until that set is certainly over.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from auth_server.keyring.ring import KeyPolicy, KeyState, SigningKey, activation_safe_at, age_sentence, when
from shared.errors import AppError
from shared.verifiers import REPORT_EVERY_S, VerifierReport

Reports = tuple[VerifierReport, ...] | None
"""What the verifiers say; None where the store can't be read: then nobody knows who verifies."""

_MAX_NAMED = 5


class Stage(StrEnum):
    """Where a key is in its life, as people and programs are shown it; derived, so no crash can leave it wrong."""

    STAGED = "staged"  # on disk; a server may not publish it yet
    PUBLISHED = "published"
    CONFIRMED = "confirmed"  # older than any key set in a cache, and proved by every verifier: safe to activate
    ACTIVE = "active"
    RETIRING = "retiring"
    REMOVED = "removed"


class Lag(StrEnum):
    """Why a verifier holds an activation up."""

    UNPROVED = "unproved"  # it lives, and has not verified the key's canary
    DROPPED = "dropped"  # it lives, verified it once, and does not hold the key now
    SILENT = "silent"  # it reports no more, and may still serve with a key set without the key


@dataclass(frozen=True, slots=True)
class Laggard:
    """A verifier that holds an activation up. ``until``: when a silent one is no longer waited for."""

    verifier_id: str
    lag: Lag
    seen_at: float
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Obstacles:
    """What speaks against the activation of ``key`` now. ``unknown``: nobody knows which verifiers there are."""

    key: SigningKey
    too_young: bool
    unknown: bool
    laggards: tuple[Laggard, ...]

    def __bool__(self) -> bool:
        return self.too_young or self.unknown or bool(self.laggards)


def has_proved(report: VerifierReport, kid: str) -> bool:
    """Whether a verifier holds the key and has verified with it: it may have lost it since (a key set rolled back)."""
    return kid in report.proofs and kid in report.kids


def laggards(kid: str, reports: tuple[VerifierReport, ...], now: float, policy: KeyPolicy) -> tuple[Laggard, ...]:
    """The verifiers that must not see tokens of ``kid`` yet."""
    return tuple(lag for report in reports for lag in _lag(kid, report, now, policy))


def _lag(kid: str, report: VerifierReport, now: float, policy: KeyPolicy) -> Iterator[Laggard]:
    if has_proved(report, kid):
        return
    if report.is_live(now):
        yield Laggard(report.id, Lag.DROPPED if kid in report.proofs else Lag.UNPROVED, report.seen_at)
    elif now < (until := report.settled_at(policy.spread_s)):
        yield Laggard(report.id, Lag.SILENT, report.seen_at, until)


def obstacles(key: SigningKey, reports: Reports, now: float, policy: KeyPolicy) -> Obstacles:
    """Look for what speaks against activating a standby key at ``now``; without any verifier its age alone decides."""
    return Obstacles(
        key=key,
        too_young=now < activation_safe_at(key, policy),
        unknown=reports is None,
        laggards=laggards(key.kid, reports or (), now, policy),
    )


def check_activation(key: SigningKey, reports: Reports, now: float, policy: KeyPolicy) -> None:
    """Raise AppError conflict, naming everything that is missing, unless every verifier certainly holds ``key``."""
    found = obstacles(key, reports, now, policy)
    if not found:
        return
    safe_at = max(
        activation_safe_at(key, policy),
        now + (REPORT_EVERY_S if found.unknown else 0),
        *(each.until or now + REPORT_EVERY_S for each in found.laggards),
        now,
    )
    raise AppError("conflict", " ".join(sentences(found, now, policy)), retry_after_s=max(1, math.ceil(safe_at - now)))


def sentences(found: Obstacles, now: float, policy: KeyPolicy) -> list[str]:
    """Everything that speaks against an activation, for people."""
    told = [age_sentence(found.key, now, policy)] if found.too_young else []
    if found.unknown:
        told.append("The store can't be read, so nobody knows which verifiers hold the key; --force goes on without.")
    if found.laggards:
        told.append(f"Verifiers without proof of {found.key.kid}: {named(found.laggards, now)}.")
    return told


def named(behind: tuple[Laggard, ...], now: float) -> str:
    """Name the verifiers that hold an activation up, at most five of them, each with the reason."""
    told = [_reason(each, now) for each in behind[:_MAX_NAMED]]
    rest = len(behind) - len(told)
    return "; ".join(told) + (f"; and {rest} more" if rest else "")


def _reason(laggard: Laggard, now: float) -> str:
    match laggard.lag:
        case Lag.UNPROVED:
            why = "live, has not verified with it"
        case Lag.DROPPED:
            why = "live, has lost it since it verified with it"
        case Lag.SILENT:
            silent_s = int(now - laggard.seen_at)
            why = f"silent for {silent_s} s, waited for until {when(laggard.until or now, now)}"
    return f"{laggard.verifier_id} ({why})"


def stage(key: SigningKey, reports: Reports, now: float, policy: KeyPolicy) -> Stage:
    """Derive what to show of a key's state."""
    match key.state:
        case KeyState.STANDBY:
            if now < key.published_at + policy.takeover_s:
                return Stage.STAGED
            return Stage.PUBLISHED if obstacles(key, reports, now, policy) else Stage.CONFIRMED
        case KeyState.ACTIVE:
            return Stage.ACTIVE
        case KeyState.RETIRED:
            return Stage.RETIRING
        case KeyState.REMOVED:
            return Stage.REMOVED
