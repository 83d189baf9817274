"""``flex keys``: what it prints, where, and with which exit code."""

import asyncio
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
from cli.keys_store import open_reports
from shared.errors import AppError
from shared.revocations.feed_key import load_or_create_feed_key
from shared.settings import Settings
from shared.store import open_store
from shared.verifiers import VerifierReport, report

ROOT = Path(__file__).parents[2]
POLICY = KeyPolicy(max_age_s=300, ttl_s=900)


class Cli:
    """``flex keys …`` in this process, on a throw-away installation."""

    def __init__(self, home: Path) -> None:
        self.folder = KeysFolder(home / "keys")
        self.events = home / "var" / "operator-events.jsonl"
        self.settings = Settings(var_dir=home / "var")

    def verifier(
        self, name: str = "model-8000-0", *, ago_s: float = 0.0, proved: tuple[str, ...] | None = None
    ) -> None:
        """Let a verifier say that it holds all keys and proved some (default: all)."""
        kids = tuple(key.kid for key in self.folder.read()[0].published)
        seen_at = time.time() - ago_s
        proofs = dict.fromkeys(kids if proved is None else proved, seen_at)
        said = VerifierReport(
            id=name,
            started_at=seen_at,
            seen_at=seen_at,
            kids=kids,
            proofs=proofs,
            feed_state="",
            staleness_s=None,
            generation=0,
        )

        async def write() -> None:
            async with open_store(self.settings) as store:
                await report(store, load_or_create_feed_key(self.settings.feed_key_file), said)

        asyncio.run(write())

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
    assert (status["verifiers"], status["verifiers_known"]) == ([], True)
    active, standby = status["keys"]
    assert (active["kid"], active["state"], standby["state"]) == (young.active, "active", "staged")
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
    RingChanges(keys.folder, POLICY, lambda: past + 500).rotate(seen_active=old, reports=())
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
    assert [line["event"] for line in lines if line["event"] != "store_started"] == [
        "key_prepared",
        "key_activated",
        "key_retired",
    ]
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
    change = rotate_when_safe(
        changes, young.active, longest_s=1000, sleep=clock.advance, tell=told.append, read_reports=tuple
    )
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

    change = rotate_when_safe(changes, seen, longest_s=1000, sleep=sleep, tell=lambda _: None, read_reports=tuple)
    assert change.overtaken
    assert young.folder.read()[0].generation == 2


def test_waiting_rotation_refuses_at_once_what_would_take_too_long(young, clock):
    """Nobody waits for a refusal."""
    clock.now = time.time()
    changes = RingChanges(young.folder, POLICY, clock)
    with pytest.raises(AppError, match="activated safely"):
        rotate_when_safe(changes, young.active, longest_s=100, sleep=pytest.fail, tell=pytest.fail, read_reports=tuple)


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


def test_rotation_names_the_verifier_that_has_not_proved_the_key(ripe):
    """Refused at once without waiting; done as soon as it has."""
    ripe.verifier("model-8000-0")
    ripe.verifier("model-8000-1", proved=(ripe.active,))
    for arguments in (["rotate", "--no-wait"], ["activate"]):
        refused = ripe(*arguments)
        assert refused.exit_code == 1
        (line,) = refused.stderr.splitlines()
        assert "model-8000-1 (live, has not verified with it)" in line
        assert "model-8000-0" not in line
    assert ripe.folder.read()[0].generation == 1
    ripe.verifier("model-8000-1")
    shown = ripe("rotate", "--no-wait")
    assert shown.exit_code == 0
    assert "every verifier proved the new key" in shown.stdout


def test_rotation_says_that_age_alone_decided_where_nobody_reports(ripe):
    """Another maker's verifiers do not register."""
    assert "no verifier has reported" in ripe("rotate").stdout


def test_status_shows_each_verifier_what_it_holds_and_since_when(ripe):
    """For programs and for people; a key is confirmed once all that live have proved it."""
    ripe.verifier(proved=(ripe.active,))
    ripe.verifier("silent-8000-0", ago_s=5000)
    status = ripe.json("status")
    live, silent = status["verifiers"]
    assert (live["id"], live["live"], live["proved"]) == ("model-8000-0", True, [ripe.active])
    assert set(live["kids"]) == {ripe.active, ripe.standby}
    assert {"seen_at", "age_s", "feed_state", "staleness_s"} <= set(live)
    assert (silent["live"], silent["age_s"] >= 5000) == (False, True)
    assert [key["state"] for key in status["keys"]] == ["active", "published"]
    assert status["keys"][1]["waits_for"] == ["model-8000-0"]
    shown = ripe("status").stdout
    assert "model-8000-0" in shown
    assert "not proved" in shown
    assert "A planned rotation waits for verifiers" in shown.replace("\n", " ")
    ripe.verifier()
    assert [key["state"] for key in ripe.json("status")["keys"]] == ["active", "confirmed"]


def test_forced_rotation_is_loud_and_leaves_an_event(young):
    """Young and unproved: it is done all the same, and both are said."""
    young.verifier(proved=())
    heir = young.standby
    shown = young("rotate", "--force")
    assert shown.exit_code == 0
    assert young.active == heir
    assert "FORCED" in shown.stderr
    assert "model-8000-0" in shown.stderr
    assert "It can be activated safely at" in shown.stderr
    assert "answers 401 to the new tokens" in shown.stdout
    forced = [json.loads(line) for line in young.events.read_text().splitlines() if "key_activation_forced" in line]
    assert [line["kid"] for line in forced] == [heir]


def test_store_that_is_away_refuses_a_planned_rotation_and_no_forced_one(ripe, monkeypatch, tmp_path):
    """Nobody knows then who verifies; the ring itself needs no store."""
    monkeypatch.setenv("FLEX_REDIS_URL", f"unix://{tmp_path}/nobody.sock")
    for arguments in (["rotate"], ["rotate", "--no-wait"], ["activate"]):
        refused = ripe(*arguments)
        assert refused.exit_code == 1
        assert "nobody knows which verifiers hold the key" in refused.stderr
    status = ripe.json("status")
    assert (status["verifiers"], status["verifiers_known"]) == ([], False)
    assert "not known" in ripe("status").stdout
    assert ripe.json("rotate", "--force")["generation"] == 2


def test_emergency_says_whether_the_verifiers_were_told(ripe, monkeypatch, tmp_path):
    """The ring first, then the feed; without a store the ring is changed all the same."""
    assert ripe.json("rotate", "--emergency")["pushed"] is True
    shown = ripe("revoke", ripe.active)
    assert "drops the key within a second" in shown.stdout
    monkeypatch.setenv("FLEX_REDIS_URL", f"unix://{tmp_path}/nobody.sock")
    active = ripe.active
    unpushed = ripe("rotate", "--emergency")
    assert unpushed.exit_code == 0
    assert ripe.folder.read()[0].find(active).compromised
    assert "could not be pushed" in unpushed.stderr
    assert "within 330 s" in unpushed.stderr
    assert ripe.json("revoke", ripe.active)["pushed"] is False
    assert ripe.json("rotate", "--force")["pushed"] is None


def test_waiting_rotation_waits_for_the_verifiers_and_names_them(ripe, clock):
    """Old enough from the start; the proof arrives at the third look."""
    clock.now = time.time()
    ripe.verifier(proved=())
    changes, told = RingChanges(ripe.folder, POLICY, clock), []

    def sleep(seconds: float) -> None:
        clock.advance(seconds)
        if len(told) == 2:
            ripe.verifier()

    with open_reports(ripe.settings) as read_reports:
        change = rotate_when_safe(
            changes, ripe.active, longest_s=20, sleep=sleep, tell=told.append, read_reports=read_reports
        )
    assert not change.overtaken
    assert len(told) == 2
    assert "model-8000-0 (live, has not verified with it)" in told[0]


def test_waiting_rotation_gives_up_on_a_laggard_after_its_time(ripe, clock):
    """And names it."""
    clock.now = time.time()
    ripe.verifier(proved=())
    changes = RingChanges(ripe.folder, POLICY, clock)
    with open_reports(ripe.settings) as read_reports, pytest.raises(AppError, match="model-8000-0"):
        rotate_when_safe(
            changes, ripe.active, longest_s=20, sleep=clock.advance, tell=lambda _: None, read_reports=read_reports
        )
