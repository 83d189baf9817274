"""Secrets can't leak by accident."""

import pickle

import msgspec
import pytest

from shared.secret import Secret


def test_no_way_of_printing_shows_the_secret():
    """repr, str, f-string and a container's repr all hide it."""
    secret = Secret("hunter2")
    assert "hunter2" not in f"{secret} {secret!r} {secret:>20} {[secret]}"
    assert secret.reveal() == "hunter2"


def test_secrets_compare_by_value_and_are_no_dictionary_key():
    """Constant-time equality, and no hash."""
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    with pytest.raises(TypeError):
        {Secret("a"): 1}


def test_no_encoder_takes_a_secret():
    """Neither JSON nor pickle."""
    with pytest.raises(TypeError):
        msgspec.json.encode(Secret("hunter2"))
    with pytest.raises(TypeError):
        pickle.dumps(Secret("hunter2"))


def test_an_empty_secret_is_false():
    """So that 'not configured' reads naturally."""
    assert not Secret("")
    assert Secret("x")
