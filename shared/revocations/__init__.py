"""Revocations that reach every verifier without a call: one authenticated stream, its writer and its followers.

The stream holds every revocation that a live token could still need, so it alone is the truth (:mod:`.writer`). Each
process follows it into its own memory (:mod:`.follower`, :mod:`.revoked`) and knows from a signed heartbeat how old
its knowledge is; :mod:`.policy` says what that age allows. A snapshot on disk (:mod:`.snapshot`) bridges a restart
without a store. A revocation is never taken back, so what was once authentic stays in force until it has no use.

What is promised against somebody who can write to the store but has not the feed key: no revocation can be forged;
none can be altered, removed, repeated or put elsewhere without followers noticing and ceasing to call themselves
fresh; and none that a running follower (or its snapshot) has seen can be undone. What is not: the store can always be
made useless; and putting the whole store back to an earlier state, in the seconds before any writer looks at it
again, hides from a follower that starts with nothing those revocations that no running writer still remembers.
"""
