"""Scopes: form, coverage and narrowing."""

import pytest

from shared import scopes
from shared.errors import AppError


@pytest.mark.parametrize(
    "scope", ["predict:grit", "explain:*", "predict:*", "admin", "keys:manage", "predict:play_teamwork"]
)
def test_scopes_with_a_meaning_are_known(scope):
    """Attribute scopes, their wildcards, management scopes and admin."""
    assert scopes.is_known(scope)


@pytest.mark.parametrize(
    "scope",
    ["", "predict", "predict:", "score:grit", "predict:Grit", "predict:grit\n", "predict:../x", "*", "models:*"],
)
def test_words_without_a_meaning_are_unknown(scope):
    """Neither a foreign action nor an unclean object."""
    assert not scopes.is_known(scope)


def test_parse_keeps_order_and_drops_repeats():
    """The answer's scope reads as the request's did."""
    assert scopes.parse("explain:grit predict:grit explain:grit") == ("explain:grit", "predict:grit")


@pytest.mark.parametrize(
    "raw",
    [
        "predict:grit  explain:grit",
        " predict:grit",
        "nonsense",
        "a" * 10_000,
        " ".join(f"predict:a{i}" for i in range(65)),
    ],
)
def test_parse_refuses_what_is_malformed_unknown_or_too_much(raw):
    """One error code for all; the scope that arrived is not repeated."""
    with pytest.raises(AppError) as refused:
        scopes.parse(raw)
    assert refused.value.code == "invalid_scope"
    assert "nonsense" not in refused.value.detail


@pytest.mark.parametrize(
    ("granted", "wanted", "covered"),
    [
        (["predict:grit"], "predict:grit", True),
        (["predict:*"], "predict:grit", True),
        (["admin"], "predict:grit", True),
        (["admin"], "keys:manage", True),
        (["predict:*"], "explain:grit", False),
        (["predict:grit"], "predict:*", False),
        (["predict:grit"], "predict:gri", False),
        (["keys:manage"], "admin", False),
        ([], "predict:grit", False),
    ],
)
def test_coverage(granted, wanted, covered):
    """A wildcard covers its action only; admin covers all; nothing else widens."""
    assert scopes.covers(granted, wanted) is covered


def test_narrowing_gives_everything_when_nothing_is_asked():
    """RFC 6749 section 3.3: the default is what the client was granted."""
    assert scopes.narrow(("predict:grit", "explain:grit"), ()) == ("predict:grit", "explain:grit")


def test_narrowing_gives_only_what_is_asked_and_refuses_more():
    """A token never holds more than the client, and the whole request is refused if one scope is too much."""
    assert scopes.narrow(("predict:*",), ("predict:grit",)) == ("predict:grit",)
    with pytest.raises(AppError, match="not granted"):
        scopes.narrow(("predict:*",), ("predict:grit", "explain:grit"))
