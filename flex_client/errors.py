"""What can go wrong, as two exceptions.

FlexError: a call was refused or got no answer
└── TokenError: no access token could be had
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One wrong field of a request: ``pointer`` is an RFC 6901 JSON pointer into the body that was sent."""

    pointer: str
    code: str
    message: str
    feature: str | None = None


class FlexError(Exception):
    """A call was refused (``status`` is the HTTP status) or got no usable answer (``status`` is None).

    ``request_id`` finds the call in the server's log. ``errors`` names each wrong field of a 422.
    ``retry_after_s`` is what a 429 or 503 asks for, in seconds. Holds neither the token nor the input.
    """

    def __init__(
        self,
        title: str,
        detail: str = "",
        *,
        status: int | None = None,
        request_id: str | None = None,
        errors: tuple[FieldProblem, ...] = (),
        retry_after_s: float | None = None,
    ) -> None:
        self.title = title
        self.detail = detail
        self.status = status
        self.request_id = request_id
        self.errors = errors
        self.retry_after_s = retry_after_s
        super().__init__(self._sentence())

    def _sentence(self) -> str:
        text = self.title if self.status is None else f"{self.status} {self.title}"
        if self.detail:
            text += f": {self.detail}"
        fields = "; ".join(f"{problem.pointer}: {problem.message}" for problem in self.errors)
        return f"{text} ({fields})" if fields else text


class TokenError(FlexError):
    """No access token could be had.

    ``error`` is the code of RFC 6749 section 5.2, such as ``invalid_client``; it is ``unreachable`` when the token
    endpoint did not answer, and ``invalid_response`` when what it answered holds no bearer token.
    """

    def __init__(
        self, error: str, detail: str = "", *, status: int | None = None, retry_after_s: float | None = None
    ) -> None:
        self.error = error
        super().__init__(f"No access token ({error})", detail, status=status, retry_after_s=retry_after_s)
