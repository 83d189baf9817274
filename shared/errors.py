"""One error type for the whole product.

Code raises :class:`AppError` with a code of ``shared.error_catalogue``. Only ``shared.http`` (and the endpoints
of OAuth, whose form RFC 6749 fixes) turns it into bytes.
"""

from collections.abc import Sequence

import msgspec

from shared.error_catalogue import CATALOGUE


class FieldError(msgspec.Struct, frozen=True, omit_defaults=True):
    """One wrong field of a request body.

    ``pointer`` is an RFC 6901 JSON pointer into the body, ``code`` a stable word, ``message`` what to do about it.
    The value that arrived is never repeated.
    """

    pointer: str
    code: str
    message: str
    feature: str | None = None


class AppError(Exception):
    """Something that a caller is told about.

    ``code`` is a key of ``CATALOGUE`` (KeyError at once for a word that is not). ``detail`` replaces the
    catalogue's sentence and is shown to the caller, so it must hold neither input nor secrets. ``reason`` is for the
    log and the metrics only and never travels. ``staleness_s`` is how old our knowledge of revocations is (infinite:
    there is none), where that is the cause. ``problem_type`` replaces our own problem type where a registered one
    exists; ``violated_policies`` belongs to those of limits. ``pause_s``: answer no sooner, so that a flood on a few
    connections becomes a trickle.
    """

    def __init__(
        self,
        code: str,
        detail: str = "",
        *,
        errors: Sequence[FieldError] = (),
        retry_after_s: int | None = None,
        scopes: Sequence[str] = (),
        allow: Sequence[str] = (),
        reason: str = "",
        staleness_s: float | None = None,
        problem_type: str = "",
        violated_policies: Sequence[str] | None = None,
        pause_s: float = 0.0,
    ) -> None:
        kind = CATALOGUE[code]
        self.code = code
        self.status = kind.status
        self.title = kind.title
        self.detail = detail or kind.detail
        self.errors = tuple(errors)
        self.retry_after_s = retry_after_s if retry_after_s is not None or kind.status != 503 else 1
        self.scopes = tuple(scopes)
        self.allow = tuple(allow)
        self.reason = reason or code
        self.staleness_s = staleness_s
        self.pause_s = pause_s
        self.problem_type = problem_type or f"urn:flex:error:{code}"
        self.violated_policies = None if violated_policies is None else tuple(violated_policies)
        super().__init__(f"{code}: {self.detail}")
