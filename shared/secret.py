"""A value that must never be printed, logged or compared byte by byte."""

import hmac


class Secret:
    """Wraps a secret string so that it can't leak through ``repr``, ``str``, an f-string or an encoder.

    Equality takes the same time wherever two values first differ; there is no hash, so a secret is never a
    dictionary key.
    """

    __slots__ = ("_value",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Give the secret itself; every call of this is a place for a reviewer to look at."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __format__(self, format_spec: str) -> str:
        return repr(self)

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a Secret is not pickled")
