"""Settings are read once and every problem is told at once."""

import dataclasses
from pathlib import Path

import pytest

from shared.settings import Settings, SettingsError


def test_the_defaults_stand_without_any_variable():
    """The defaults that the documentation promises."""
    settings = Settings.read({})
    assert (settings.env, settings.auth_port, settings.model_port) == ("development", 9000, 8000)
    assert (settings.issuer, settings.resource) == ("http://127.0.0.1:9000", "http://127.0.0.1:8000")
    assert (settings.access_token_ttl_s, settings.jwks_max_age_s, settings.workers) == (900, 300, 1)


def test_all_problems_are_reported_together():
    """An operator mends everything in one go."""
    with pytest.raises(SettingsError) as refused:
        Settings.read({"FLEX_ENV": "prod", "FLEX_AUTH_PORT": "99999", "FLEX_WORKERS": "two", "FLEX_ISSUER": "ftp://x"})
    text = str(refused.value)
    assert len(refused.value.problems) == 4
    for variable in ("FLEX_ENV", "FLEX_AUTH_PORT", "FLEX_WORKERS", "FLEX_ISSUER"):
        assert variable in text


@pytest.mark.parametrize("ttl", ["59", "3601", "-1", "", "900.5"])
def test_a_token_life_outside_its_bounds_is_refused(ttl):
    """60 to 3600 whole seconds."""
    with pytest.raises(SettingsError, match="from 60 to 3600"):
        Settings.read({"FLEX_ACCESS_TOKEN_TTL_S": ttl})


def test_production_refuses_plain_http_but_takes_https_and_the_loopback():
    """A token must not travel in clear; a loopback issuer is behind a proxy on the same host."""
    with pytest.raises(SettingsError, match="https"):
        Settings.read({"FLEX_ENV": "production", "FLEX_ISSUER": "http://auth.example"})
    assert (
        Settings.read({"FLEX_ENV": "production", "FLEX_ISSUER": "https://auth.example/"}).issuer
        == "https://auth.example"
    )
    assert Settings.read({"FLEX_ENV": "production"}).production


def test_production_refuses_wildcard_cors():
    """Development may use it."""
    assert Settings.read({"FLEX_CORS_ORIGINS": "*"}).cors_origins == ("*",)
    with pytest.raises(SettingsError, match="CORS"):
        Settings.read({"FLEX_ENV": "production", "FLEX_CORS_ORIGINS": "*"})
    with pytest.raises(SettingsError, match="scheme://host"):
        Settings.read({"FLEX_CORS_ORIGINS": "https://app.example/path"})


def test_the_store_url_never_shows_its_password():
    """The URL may hold a password, so it is a secret as a whole."""
    settings = Settings.read({"FLEX_REDIS_URL": "redis://:hunter2@db:6379/0"})
    assert "hunter2" not in repr(settings)
    assert settings.redis_url.reveal().endswith("@db:6379/0")


def test_settings_are_immutable_and_every_field_is_documented():
    """One reader, one truth; the documentation is generated from the fields."""
    settings = Settings.read({})
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.env = "production"
    for field in dataclasses.fields(Settings):
        assert field.metadata["env"].startswith("FLEX_")
        assert field.metadata["help"]


def test_a_dotenv_file_is_read_under_the_environment(tmp_path, monkeypatch):
    """``.env`` of the working folder counts, the process environment wins."""
    (tmp_path / ".env").write_text("FLEX_AUTH_PORT=9100\nFLEX_MODEL_PORT=8100\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLEX_MODEL_PORT", "8200")
    settings = Settings.read()
    assert (settings.auth_port, settings.model_port) == (9100, 8200)


def test_the_feed_key_rests_in_the_var_folder_unless_it_is_named():
    """Orchestrators mount it elsewhere."""
    assert Settings.read({"FLEX_VAR_DIR": "state"}).feed_key_file == Path("state/feed.key")
    assert Settings.read({"FLEX_FEED_KEY_FILE": "/run/secrets/feed"}).feed_key_file == Path("/run/secrets/feed")


def test_the_default_limit_follows_the_environment():
    """Tight in production, out of the way in development, and what is set wins."""
    production = {"FLEX_ENV": "production", "FLEX_ISSUER": "https://issuer.example"}
    assert Settings.read({}).calls_per_hour == 1_000_000
    assert Settings.read(production).calls_per_hour == 100
    assert Settings.read(production | {"FLEX_RATE_LIMIT_PER_HOUR": "7"}).calls_per_hour == 7
    assert Settings.read({"FLEX_RATE_LIMIT_PER_HOUR": "1000000000"}).calls_per_hour == 100_000_000
    for text in ("0", "-1", "many", "1.5"):
        with pytest.raises(SettingsError, match="FLEX_RATE_LIMIT_PER_HOUR"):
            Settings.read({"FLEX_RATE_LIMIT_PER_HOUR": text})
