"""``flex keys``: what it prints, where, and with which exit code."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from auth_server.keyring.changes import RingChanges
from auth_server.keyring.folder import KeysFolder
from auth_server.keyring.ring import KeyPolicy
from cli.keys import app, rotate_when_safe
from shared.errors import AppError

ROOT = Path(__file__).parents[2]
POLICY = KeyPolicy(max_age_s=300, ttl_s=900)


class Cli:
    """``flex keys …`` in this process, on a throw-away installation."""

    def __init__(self, home: Path) -> None:
        self.folder = KeysFolder(home / "keys")
        self.events = home / "var" / "operator-events.jsonl"

    def __call__(self, *arguments: str):
        return CliRunner().invoke(app, arguments)

    def json(self, *arguments: str):
        result = self(*arguments, "--json")
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    @property
    def active(self) -> str:
        return self.folder.read()[0].active.kid

    @property
    def standby(self) -> str:
        return self.folder.read()[0].next_standby.kid


@pytest.fixture
def keys(tmp_path, monkeypatch) -> Cli:
    """An installation without a ring yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLEX_KEYS_DIR", str(tmp_path / "keys"))
    monkeypatch.setenv("FLEX_VAR_DIR", str(tmp_path / "var"))
    return Cli(tmp_path)


@pytest.fixture
def ripe(keys) -> Cli:
    """A ring whose standby key was published long ago."""
    keys.folder.ensure(time.time() - 1000, POLICY)
    return keys


@pytest.fixture
def young(keys) -> Cli:
    """A ring whose standby key was published just now."""
    keys.folder.ensure(time.time(), POLICY)
    return keys


def test_status_as_json_is_what_the_contract_says(young):
    """generation, jwks_max_age_s, verifiers, and every key's state and next safe step."""
    status = young.json("status")
    assert status["generation"] == 1
    assert status["jwks_max_age_s"] == 300
    assert status["verifiers"] == []
    active, standby = status["keys"]
    assert (active["kid"], active["state"], standby["state"]) == (young.active, "active", "standby")
    assert {
        "kid", "state", "created_at", "published_at", "activated_at", "retired_at", "age_s", "last_expiry_at",
        "compromised", "next_step", "safe_at",
    } <= set(active)  # fmt: skip
    assert standby["next_step"] == "activate"
    # 300 s of max-age, 30 s that a cache may serve it stale, 2 s for the servers to publish it
    assert standby["safe_at"] - standby["published_at"] == pytest.approx(332, abs=1)


def test_status_for_people_shows_each_key_and_what_to_do(young):
    """A table and one sentence."""
    shown = young("status")
    assert shown.exit_code == 0
    assert young.active[:16] in shown.stdout
    assert "never signed" in shown.stdout
    assert "a planned rotation is safe at" in shown.stdout


def test_planned_rotation_is_done_in_one_step(ripe):
    """Old active retired, old standby active, new standby published, one generation further."""
    old, heir = ripe.active, ripe.standby
    done = ripe.json("rotate")
    assert (done["retired"], done["activated"], done["active"]) == ([old], [heir], heir)
    assert done["prepared"] == [ripe.standby]
    assert (done["generation"], done["overtaken"]) == (2, False)


def test_rotation_tells_people_that_callers_notice_nothing(ripe):
    """And which key signs now."""
    heir = ripe.standby
    shown = ripe("rotate")
    assert f"Activated {heir}" in shown.stdout
    assert "Callers notice nothing" in shown.stdout


def test_young_standby_key_is_refused_at_once_without_waiting(young):
    """Exit code 1, nothing on standard output, one line that says when it will be safe; nothing has changed."""
    for arguments in (["rotate", "--no-wait"], ["rotate", "--wait-timeout", "5", "--json"], ["activate"]):
        refused = young(*arguments)
        assert refused.exit_code == 1
        assert refused.stdout == ""
        (line,) = refused.stderr.splitlines()
        assert "It can be activated safely at" in line
    assert young.folder.read()[0].generation == 1


def test_emergency_rotation_waits_for_nothing_and_says_what_callers_will_see(young):
    """The active key is gone and marked, the young standby key signs."""
    old, heir = young.active, young.standby
    shown = young("rotate", "--emergency")
    assert shown.exit_code == 0
    assert young.active == heir
    assert young.folder.read()[0].find(old).compromised
    assert "401 invalid_token" in shown.stdout
    assert "The new key is young" in shown.stdout
    assert not (young.folder.path / f"{old}.pem").exists()


def test_rotation_of_a_generation_that_is_over_is_done_already(ripe):
    """An automation that repeats itself rotates once."""
    assert ripe.json("rotate", "--generation", "1")["overtaken"] is False
    again = ripe.json("rotate", "--generation", "1")
    assert again["overtaken"] is True
    assert again["generation"] == 2
    assert "Done already" in ripe("rotate", "--generation", "1").stdout


def test_prepare_makes_the_first_ring_and_then_more_standby_keys(keys):
    """Also the way to a ring before the first start."""
    first = keys.json("prepare")
    assert (len(first["prepared"]), len(first["activated"])) == (1, 1)
    more = keys.json("prepare", "--bits", "3072")
    (kid,) = more["prepared"]
    assert keys.folder.read()[0].find(kid).n_bits == 3072


def test_activate_takes_the_first_characters_of_a_kid(ripe):
    """At least six, and only one key may begin so."""
    heir = ripe.standby
    assert ripe.json("activate", heir[:8])["activated"] == [heir]
    assert ripe("activate", heir[:3]).exit_code == 1


def test_emergency_activation_of_a_young_key_says_so(young):
    """The old key stays trusted; the warning is about the new one."""
    shown = young("activate", "--emergency")
    assert shown.exit_code == 0
    assert "The new key is young" in shown.stdout
    assert "notice nothing" not in shown.stdout


def test_retire_clears_what_is_over_and_says_so_if_there_is_nothing(keys):
    """Without a kid it may run at any time."""
    past = time.time() - 10_000
    keys.folder.ensure(past, POLICY)
    assert "Nothing to do" in keys("retire").stdout
    old = keys.active
    RingChanges(keys.folder, POLICY, lambda: past + 500).rotate(seen_active=old)
    assert keys.json("retire")["removed"] == [old]


def test_retire_refuses_a_key_that_live_tokens_need(ripe):
    """And says when it may go; a standby key can be withdrawn at any time."""
    old = ripe.active
    ripe.json("rotate")
    refused = ripe("retire", old)
    assert refused.exit_code == 1
    assert "It can be removed after" in refused.stderr
    standby = ripe.standby
    assert ripe.json("retire", standby)["retired"] == [standby]


def test_revoke_drops_any_key(ripe):
    """An unknown kid is refused in one line; a missing one is wrong usage."""
    standby = ripe.standby
    assert ripe.json("revoke", standby)["revoked"] == [standby]
    assert ripe("revoke", "does-not-exist").exit_code == 1
    assert ripe("revoke").exit_code == 2


def test_trouble_is_one_line_and_exit_code_1(young, monkeypatch):
    """Open folder, missing folder, wrong settings: always a sentence with the cure."""
    young.folder.path.chmod(0o755)
    refused = young("status")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr.strip().endswith(f"chmod 700 {young.folder.path}")
    monkeypatch.setenv("FLEX_KEYS_DIR", "nowhere")
    assert "'flex keys prepare' makes it" in young("status").stderr
    monkeypatch.setenv("FLEX_JWKS_MAX_AGE_S", "often")
    wrong = young("status")
    assert wrong.exit_code == 1
    assert "FLEX_JWKS_MAX_AGE_S: must be a whole number" in wrong.stderr


def test_events_go_to_their_own_file(ripe):
    """Standard output is the result and nothing else; the file is closed to others."""
    ripe.json("rotate")
    lines = [json.loads(line) for line in ripe.events.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["key_prepared", "key_activated", "key_retired"]
    assert {line["server"] for line in lines} == {"cli"}
    assert ripe.events.stat().st_mode & 0o777 == 0o600


def test_every_command_has_help_with_an_example(keys):
    """One sentence and a line to copy."""
    for command in ("status", "prepare", "activate", "retire", "revoke", "rotate"):
        shown = keys(command, "--help")
        assert shown.exit_code == 0
        assert f"flex keys {command}" in shown.stdout
        assert "--json" in shown.stdout


def test_waiting_rotation_counts_down_and_then_rotates(young, clock):
    """The standby key's age is looked at again every second; the moment it is safe, one commit does it."""
    clock.now = time.time()
    changes, told = RingChanges(young.folder, POLICY, clock), []
    change = rotate_when_safe(changes, young.active, longest_s=1000, sleep=clock.advance, tell=told.append)
    assert not change.overtaken
    assert len(told) == pytest.approx(302, abs=2)
    assert told[-1].endswith("(in 1 s)")


def test_waiting_rotation_ends_well_when_another_one_is_faster(young, clock):
    """It rotates once, not twice."""
    clock.now = time.time()
    changes, seen = RingChanges(young.folder, POLICY, clock), young.active

    def sleep(seconds: float) -> None:
        clock.advance(seconds)
        if young.active == seen:
            changes.rotate_in_emergency(seen_active=seen)

    change = rotate_when_safe(changes, seen, longest_s=1000, sleep=sleep, tell=lambda _: None)
    assert change.overtaken
    assert young.folder.read()[0].generation == 2


def test_waiting_rotation_refuses_at_once_what_would_take_too_long(young, clock):
    """Nobody waits for a refusal."""
    clock.now = time.time()
    changes = RingChanges(young.folder, POLICY, clock)
    with pytest.raises(AppError, match="activated safely"):
        rotate_when_safe(changes, young.active, longest_s=100, sleep=pytest.fail, tell=pytest.fail)


def test_operators_that_rotate_at_the_same_moment_both_succeed(ripe, tmp_path):
    """Real processes: one generation further, exit code 0 for each."""
    script = "import sys; from cli.keys import app; sys.stdin.read(); app(['rotate', '--generation', '1', '--json'])"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        for _ in range(3)
    ]
    said = [json.loads(process.communicate("go")[0]) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert sorted(answer["overtaken"] for answer in said) == [False, True, True]
    assert ripe.folder.read()[0].generation == 2
