"""The decisions of ``transitions`` applied to the folder: lock, look again, decide, write once, tell.

Every function blocks (lock, RSA generation, fsync): call them from the command line or a thread, never on an event
loop. ``clock`` gives UTC seconds and is read under the lock.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from auth_server.keyring import confirmation, transitions
from auth_server.keyring.confirmation import Reports
from auth_server.keyring.folder import Draft, KeysFolder
from auth_server.keyring.ring import KeyPolicy, KeyRing, KeyState, SigningKey
from shared.errors import AppError
from shared.events import Event, emit

Clock = Callable[[], float]
_EVENT_OF = {
    KeyState.STANDBY: Event.KEY_PREPARED,
    KeyState.ACTIVE: Event.KEY_ACTIVATED,
    KeyState.RETIRED: Event.KEY_RETIRED,
    KeyState.REMOVED: Event.KEY_REMOVED,
}


@dataclass(frozen=True, slots=True)
class Change:
    """The ring before and after. ``overtaken``: another process did it meanwhile, and nothing was changed here."""

    before: KeyRing
    after: KeyRing
    overtaken: bool = False

    def moved_to(self, state: KeyState) -> tuple[SigningKey, ...]:
        """The keys that this change brought into ``state``."""
        old = {key.kid: key.state for key in self.before.keys}
        return tuple(key for key in self.after.in_state(state) if old.get(key.kid) is not state)


@dataclass(frozen=True, slots=True)
class RingChanges:
    """Everything an operator can do to the ring in ``folder``. New keys get ``n_bits`` bits.

    ``actor`` names in the events who does it, where it is not the command line.
    """

    folder: KeysFolder
    policy: KeyPolicy
    clock: Clock
    n_bits: int = 2048
    actor: str = ""

    def prepare(self) -> Change:
        """Publish one more standby key. Raises AppError conflict if no more may be published."""
        with self.folder.changing() as draft:
            made = self.folder.make_key(self.n_bits)
            before = draft.ring
            draft.commit(transitions.prepare(before, made.fresh, self.clock()), [made])
            return self._announced(Change(before, draft.ring))

    def activate(self, kid: str = "", *, reports: Reports, force: bool = False) -> Change:
        """Let a standby key sign (default: the one published longest) and retire the active one.

        ``reports``: what the verifiers said just before. Raises AppError conflict, naming what is missing, if the key
        is too young or a verifier has not proved it; ``force`` goes on all the same, and is told as an event.
        """
        with self._refusals_told("activate"), self.folder.changing() as draft:
            before = draft.ring
            chosen = before.find(kid) if kid else before.next_standby
            missing = self._checked(chosen, reports, force=force)
            made = self.folder.make_key(self.n_bits)
            after = transitions.activate(
                before, self.clock(), self.policy, fresh=made.fresh, reports=reports, kid=chosen.kid, force=force
            )
            draft.commit(after, [made])
            return self._announced(Change(before, after), forced=force, missing=missing)

    def rotate(self, *, seen_active: str, reports: Reports, force: bool = False) -> Change:
        """Planned rotation in one commit. ``seen_active``: the active kid on which the caller decided to rotate.

        If another key is active by now, another rotation was faster: nothing is done and ``overtaken`` is set.
        Raises AppError conflict as :meth:`activate` does.
        """
        with self._refusals_told("rotate"), self.folder.changing() as draft:
            before = draft.ring
            if before.active.kid != seen_active:
                return Change(before, before, overtaken=True)
            missing = self._checked(before.next_standby, reports, force=force)
            made = self.folder.make_key(self.n_bits)
            after = transitions.rotate(
                before, self.clock(), self.policy, fresh=made.fresh, reports=reports, force=force
            )
            draft.commit(after, [made])
            return self._announced(Change(before, after), forced=force, missing=missing)

    def _checked(self, key: SigningKey, reports: Reports, *, force: bool) -> list[str]:
        """Refuse before a key is made for nothing; gives what speaks against the activation (all of it forced)."""
        if key.state is not KeyState.STANDBY:
            return []  # the transition refuses it, and says why
        now = self.clock()
        if not force:
            confirmation.check_activation(key, reports, now, self.policy)
        self.folder.private_key(key)  # a key that can't be loaded must never become active
        return confirmation.sentences(confirmation.obstacles(key, reports, now, self.policy), now, self.policy)

    def rotate_in_emergency(self, *, seen_active: str) -> Change:
        """Drop the key that the caller saw active as compromised; the standby key signs at once, whatever its age.

        If a planned rotation retired it meanwhile, it is dropped all the same; ``overtaken`` if it is gone already.
        """
        with self._refusals_told("rotate"), self.folder.changing() as draft:
            if draft.ring.find(seen_active).state is KeyState.REMOVED:
                return Change(draft.ring, draft.ring, overtaken=True)
            return self._revoke(draft, seen_active)

    def revoke(self, kid: str) -> Change:
        """Drop a compromised key at once. Raises AppError conflict if it is removed already, not_found if unknown."""
        with self._refusals_told("revoke"), self.folder.changing() as draft:
            return self._revoke(draft, kid)

    def _revoke(self, draft: Draft, kid: str) -> Change:
        before = draft.ring
        if before.find(kid).state is KeyState.ACTIVE:
            self.folder.private_key(before.next_standby)
        made = self.folder.make_key(self.n_bits)
        draft.commit(transitions.revoke(before, kid, self.clock(), self.policy, fresh=made.fresh), [made])
        return self._announced(Change(before, draft.ring))

    def retire(self, kid: str) -> Change:
        """End one key: withdraw it if it is a standby key, remove it if it is retired and no live token needs it.

        Raises AppError conflict, with the earliest safe time, if that is not safe yet.
        """
        with self._refusals_told("retire"), self.folder.changing() as draft:
            before, now = draft.ring, self.clock()
            if before.find(kid).state is KeyState.RETIRED:
                draft.commit(transitions.remove(before, kid, now, self.policy))
            else:
                made = self.folder.make_key(self.n_bits)
                draft.commit(transitions.retire(before, kid, now, fresh=made.fresh), [made])
            return self._announced(Change(before, draft.ring))

    def sweep(self) -> Change:
        """Remove every retired key that no live token needs; nothing is written if there is none."""
        with self.folder.changing() as draft:
            before = draft.ring
            after = transitions.sweep(before, self.clock(), self.policy)
            if after is not before:
                draft.commit(after)
            return self._announced(Change(before, after))

    def _announced(self, change: Change, *, forced: bool = False, missing: Sequence[str] = ()) -> Change:
        who, generation = self._who, change.after.generation
        for state, event in _EVENT_OF.items():
            for key in change.moved_to(state):
                emit(Event.KEY_REVOKED if key.compromised else event, kid=key.kid, generation=generation, **who)
        if forced:
            kid = change.after.active.kid
            emit(Event.KEY_ACTIVATION_FORCED, kid=kid, generation=generation, missing=" ".join(missing), **who)
        return change

    @contextlib.contextmanager
    def _refusals_told(self, step: str) -> Iterator[None]:
        try:
            yield
        except AppError as refusal:
            emit(Event.KEY_ROTATION_REFUSED, step=step, reason=explanation(refusal), **self._who)
            raise

    @property
    def _who(self) -> dict[str, str]:
        return {"actor": self.actor} if self.actor else {}


def reserve(folder: KeysFolder, kid: str, until: float) -> None:
    """Make the high-water mark of ``kid`` durable up to ``until``; nothing is written if it is no longer active."""
    with folder.changing() as draft:
        after = transitions.reserve(draft.ring, kid, until)
        if after is not draft.ring:
            draft.commit(after)


def explanation(error: AppError) -> str:
    """What to tell the operator about an error: the inner reason if there is one, else what callers are told."""
    return error.reason if error.reason != error.code else error.detail
