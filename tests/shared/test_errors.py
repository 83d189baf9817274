"""The catalogue is complete and an error tells no more than it should."""

import pytest

from shared.error_catalogue import CATALOGUE
from shared.errors import AppError


def test_every_row_has_a_status_a_cause_and_a_cure():
    """docs/errors.md is made from these."""
    for code, kind in CATALOGUE.items():
        assert code == kind.code
        assert 400 <= kind.status <= 599
        assert all((kind.title, kind.detail, kind.cause, kind.cure))


def test_a_code_outside_the_catalogue_is_a_defect_at_once():
    """No error without a documented row."""
    with pytest.raises(KeyError):
        AppError("something_else")


def test_the_reason_is_for_the_log_and_defaults_to_the_code():
    """Callers see the detail only."""
    assert AppError("invalid_token", reason="wrong_audience").reason == "wrong_audience"
    assert AppError("invalid_token").reason == "invalid_token"
    assert "wrong_audience" not in str(AppError("invalid_token", reason="wrong_audience"))
