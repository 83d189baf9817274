"""No history of operations, however mixed, takes away a key that a live token needs."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import settings, stateful
from hypothesis import strategies as st

from auth_server.keyring import transitions
from auth_server.keyring.ring import FreshKey, KeyPolicy, KeyRing, KeyState, faults, reservation
from shared.errors import AppError
from shared.verifiers import LIVE_S, VerifierReport

POLICY = KeyPolicy(max_age_s=300, ttl_s=900)
WAITS = st.sampled_from([0.1, 1.0, 29.0, 31.0, 119.0, 301.0, 303.0, 899.0, 1049.0, 1051.0, 5000.0])
PICKS = st.integers(min_value=0, max_value=40)


@dataclass(frozen=True)
class Token:
    kid: str
    exp: float


class Verifier:
    """A model server as far as keys go: what it fetched, what it proved, when it last said so."""

    def __init__(self) -> None:
        self.kids: tuple[str, ...] = ()
        self.proofs: dict[str, float] = {}
        self.said: VerifierReport | None = None

    def report(self, name: str, now: float) -> None:
        self.said = VerifierReport(
            id=name,
            started_at=0.0,
            seen_at=now,
            kids=self.kids,
            proofs=dict(self.proofs),
            feed_state="",
            staleness_s=None,
            generation=0,
        )


class RingMachine(stateful.RuleBasedStateMachine):
    """A ring on disk, two servers that may hold any older ring, every token that they ever signed, two verifiers."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000.0
        self.n_made = 0
        self.ring = transitions.first_ring(self.fresh(), self.fresh(), self.now, POLICY)
        self.held = [self.ring, self.ring]
        self.tokens: list[Token] = []
        self.verifiers = [Verifier(), Verifier()]

    @property
    def reports(self) -> tuple[VerifierReport, ...]:
        return tuple(verifier.said for verifier in self.verifiers if verifier.said is not None)

    def fresh(self) -> FreshKey:
        self.n_made += 1
        return FreshKey(
            kid=f"k{self.n_made}", n="n", e="AQAB", n_bits=2048, pem_sha256=str(self.n_made), encrypted=False
        )

    def some_kid(self, pick: int) -> str:
        return self.ring.keys[pick % len(self.ring.keys)].kid

    def change(self, result: KeyRing) -> None:
        assert result.generation in {self.ring.generation, self.ring.generation + 1}
        self.ring = result

    def try_change(self, act: Callable[[], KeyRing]) -> None:
        """A refusal changes nothing; anything but a refusal is a bug and fails the test."""
        with contextlib.suppress(AppError):
            self.change(act())

    @stateful.rule(seconds=WAITS)
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.tokens = [token for token in self.tokens if token.exp + POLICY.leeway_s >= self.now]

    @stateful.rule(server=st.integers(0, 1))
    def server_takes_over(self, server: int) -> None:
        self.held[server] = self.ring

    @stateful.rule(server=st.integers(0, 1), life=st.floats(0, 4000))
    def server_reserves(self, server: int, life: float) -> None:
        """Ahead of need, or for a client whose tokens live longer than usual."""
        kid = self.held[server].active.kid
        self.change(transitions.reserve(self.ring, kid, reservation(self.now, POLICY, self.now + life)))
        self.held[server] = self.ring

    @stateful.rule(server=st.integers(0, 1), life=st.floats(1, 4100))
    def server_signs(self, server: int, life: float) -> None:
        """Even a server that sleeps on an old ring signs only up to the mark that it knows."""
        key = self.held[server].active
        if self.now + life <= key.last_expiry_at:
            self.tokens.append(Token(key.kid, self.now + life))

    @stateful.rule(kind=st.sampled_from(["prepare", "activate", "rotate", "sweep", "retire", "remove"]), pick=PICKS)
    def operator_acts(self, kind: str, pick: int) -> None:
        kid = self.some_kid(pick)
        acts = {
            "prepare": lambda: transitions.prepare(self.ring, self.fresh(), self.now),
            "activate": lambda: transitions.activate(
                self.ring, self.now, POLICY, fresh=self.fresh(), reports=self.reports, kid=kid
            ),
            "rotate": lambda: transitions.rotate(self.ring, self.now, POLICY, fresh=self.fresh(), reports=self.reports),
            "sweep": lambda: transitions.sweep(self.ring, self.now, POLICY),
            "retire": lambda: transitions.retire(self.ring, kid, self.now, fresh=self.fresh()),
            "remove": lambda: transitions.remove(self.ring, kid, self.now, POLICY),
        }
        before = self.ring.active.kid
        self.try_change(acts[kind])
        if self.ring.active.kid != before:
            self.everybody_knows_the_key_that_signs()

    def everybody_knows_the_key_that_signs(self) -> None:
        """After an activation that nobody forced."""
        for said in self.reports:
            proved = self.ring.active.kid in said.kids and self.ring.active.kid in said.proofs
            over = self.now >= said.seen_at + POLICY.spread_s
            assert proved or (self.now - said.seen_at > LIVE_S and over)

    @stateful.rule(number=st.integers(0, 1), server=st.integers(0, 1), report=st.booleans())
    def verifier_fetches_and_proves(self, *, number: int, server: int, report: bool) -> None:
        """It sees the key set of a server that may hold an older ring, and the canaries of the newest."""
        verifier = self.verifiers[number]
        verifier.kids = tuple(key.kid for key in self.held[server].published)
        canaries = [key.kid for key in self.ring.keys if key.state in {KeyState.STANDBY, KeyState.ACTIVE}]
        verifier.proofs |= {kid: self.now for kid in canaries if kid in verifier.kids}
        if report:
            verifier.report(f"v{number}", self.now)

    @stateful.rule(number=st.integers(0, 1))
    def verifier_reports(self, number: int) -> None:
        self.verifiers[number].report(f"v{number}", self.now)

    @stateful.rule(number=st.integers(0, 1), report=st.booleans(), goodbye=st.booleans())
    def verifier_restarts(self, *, number: int, report: bool, goodbye: bool) -> None:
        said = None if goodbye else self.verifiers[number].said
        self.verifiers[number] = Verifier()
        self.verifiers[number].said = said
        if report:
            self.verifiers[number].report(f"v{number}", self.now)

    @stateful.rule()
    def two_operators_rotate_at_once(self) -> None:
        """Both decided on the same active key: whoever comes second finds another one and does nothing."""
        seen, generation = self.ring.active.kid, self.ring.generation
        for _ in range(2):
            if self.ring.active.kid == seen:
                self.try_change(
                    lambda: transitions.rotate(self.ring, self.now, POLICY, fresh=self.fresh(), reports=self.reports)
                )
        assert self.ring.generation <= generation + 1

    @stateful.rule(pick=PICKS, emergency=st.booleans())
    def operator_panics(self, *, pick: int, emergency: bool) -> None:
        kid = self.ring.active.kid if emergency else self.some_kid(pick)
        self.try_change(lambda: transitions.revoke(self.ring, kid, self.now, POLICY, fresh=self.fresh()))

    @stateful.invariant()
    def ring_is_whole(self) -> None:
        assert faults(self.ring) == []
        assert all(key.last_expiry_at == 0 for key in self.ring.in_state(KeyState.STANDBY))

    @stateful.invariant()
    def live_tokens_keep_their_key(self) -> None:
        published = {key.kid for key in self.ring.published}
        for token in self.tokens:
            assert token.kid in published or self.ring.find(token.kid).compromised

    @stateful.invariant()
    def high_water_marks_hold(self) -> None:
        for token in self.tokens:
            assert token.exp <= self.ring.find(token.kid).last_expiry_at


RingMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, database=None)
TestKeyRing = RingMachine.TestCase
