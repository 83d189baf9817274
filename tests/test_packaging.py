"""The files around the code: locks, Makefile, container files. Nothing here needs Docker."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cli.supervisor import server_part
from shared.settings import Settings

ROOT = Path(__file__).parents[1]
LOCKS = ["requirements.lock", "requirements-dev.lock"]
MAKEFILE = (ROOT / "Makefile").read_text()
CI = (ROOT / ".ci" / "run").read_text()


def read(name: str) -> str:
    return (ROOT / name).read_text()


def compose() -> dict:
    """compose.yaml as data, through the one YAML reader at hand, or a skip."""
    yaml = pytest.importorskip("yaml", reason="no YAML reader is installed")
    return yaml.safe_load(read("compose.yaml"))


# -- locks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_hashes_for_everything_and_names_no_host(name: str) -> None:
    """Each package is pinned with sha256 hashes; no index, no path, no link."""
    text = read(name)
    entries = re.split(r"\n(?=[a-z0-9])", re.sub(r"(?m)^ *#.*\n?", "", text).strip())
    assert len(entries) > 40
    for entry in entries:
        assert re.match(r"[a-z0-9-]+==[^ ]+( ; [^\\]+)? \\\n    --hash=sha256:[0-9a-f]{64}", entry), entry[:80]
    assert not re.search(r"https?://|--index|--find-links|file:|/home/|/root/|/tmp/", text)


def test_the_locks_hold_every_direct_dependency() -> None:
    """What pyproject.toml asks for is in the lock: run-time and build needs in both, development needs in one."""
    project = tomllib.loads(read("pyproject.toml"))
    locked = [{line.split("==")[0] for line in read(name).splitlines() if "==" in line} for name in LOCKS]

    def names(specs: list[str]) -> set[str]:
        return {re.split(r"[><=;\[ ]", spec)[0].lower() for spec in specs}

    runtime = names(project["project"]["dependencies"]) | names(project["dependency-groups"]["build"])
    assert runtime <= locked[0] <= locked[1]
    assert names(project["dependency-groups"]["dev"]) <= locked[1]


def test_both_locks_agree() -> None:
    """The development lock is the run-time lock and more, version for version."""
    runtime, development = (
        {line.removesuffix(" \\") for line in read(name).splitlines() if "==" in line} for name in LOCKS
    )
    assert runtime <= development


# -- Makefile ----------------------------------------------------------------------------------------------------


def make(*arguments: str, folder: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=clean | environment, capture_output=True, text=True, check=False
    )


def test_make_lists_its_targets() -> None:
    """Plain `make` prints one line a target, and every promised one is there."""
    shown = make()
    assert shown.returncode == 0
    listed = re.findall(r"^  make ([a-z-]+) +\S", shown.stdout, re.MULTILINE)
    promised = [
        "setup",
        "run",
        "demo",
        "test",
        "check",
        "format",
        "rotate-keys",
        "keys-status",
        "models",
        "bench",
        "soak",
        "lock",
    ]
    assert set(promised) <= set(listed)
    assert all(len(line) <= 120 for line in shown.stdout.splitlines())


def test_every_target_sets_up_first_what_it_needs(tmp_path: Path) -> None:
    """On a fresh clone each target begins with the virtual environment; only checking targets get the tools too."""
    for name in ("Makefile", "pyproject.toml", *LOCKS):
        shutil.copy(ROOT / name, tmp_path)
    for target in ("setup", "run", "demo", "rotate-keys", "keys-status"):
        steps = make("-n", target, folder=tmp_path).stdout
        assert "-m venv .venv" in steps
        assert "--require-hashes --requirement requirements.lock" in steps
        assert "requirements-dev.lock" not in steps
    for target in ("test", "check", "format", "models", "bench", "soak"):
        assert "--require-hashes --requirement requirements-dev.lock" in make("-n", target, folder=tmp_path).stdout


def test_rotate_keys_passes_its_switches_on() -> None:
    """WAIT=0 and EMERGENCY=1 become the command's own options."""
    assert "flex keys rotate" in make("-n", "rotate-keys").stdout
    assert "--no-wait" not in make("-n", "rotate-keys").stdout
    assert "--no-wait" in make("-n", "rotate-keys", "WAIT=0").stdout
    assert "--emergency" in make("-n", "rotate-keys", "EMERGENCY=1").stdout
    assert "--force" in make("-n", "rotate-keys", "FORCE=1").stdout
    assert "--force" not in make("-n", "rotate-keys").stdout


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("exit 1", "Python 3.11 or newer with venv is needed"),
        ('case "$*" in *libgomp*) exit 1;; esac', "The OpenMP runtime is missing"),
    ],
)
def test_a_missing_prerequisite_is_one_clear_line(tmp_path: Path, script: str, message: str) -> None:
    """No Python, or no OpenMP runtime: one line says what to install, and nothing is made."""
    for name in ("Makefile", "pyproject.toml", *LOCKS):
        shutil.copy(ROOT / name, tmp_path)
    programs = tmp_path / "bin"
    programs.mkdir()
    for version in ("3", "3.11", "3.12", "3.13", "3.14"):
        (programs / f"python{version}").write_text(f"#!/bin/sh\n{script}\n")
        (programs / f"python{version}").chmod(0o755)
    done = make("setup", folder=tmp_path, PATH=f"{programs}:/usr/bin:/bin")
    assert done.returncode == 2
    said = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert len(said) == 1
    assert message in said[0]
    assert not (tmp_path / ".venv").exists()


# -- containers --------------------------------------------------------------------------------------------------


def dockerfile(instruction: str) -> list[str]:
    return re.findall(rf"(?m)^{instruction} (.*)$", read("Dockerfile"))


def test_the_image_runs_only_commands_that_are_run_elsewhere_too() -> None:
    """Each RUN is, word for word, a line of .ci/run, a make target, or run by a test below; CMD is the supervisor's."""
    own = {"install -d -m 0700 -o 10001 -g 10001 var keys"}
    for command in dockerfile("RUN"):
        is_target = command == "make setup" and "\nsetup:" in MAKEFILE
        assert is_target or command in own or command in CI, command
    (command,) = dockerfile("CMD")
    assert json.loads(command)[1:] == ["-m", server_part(Settings(), "auth").module]


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give folders away")
def test_the_images_folders_belong_to_the_serving_user(tmp_path: Path) -> None:
    """The one command of the Dockerfile that nothing else runs does what it should."""
    subprocess.run(
        ["install", "-d", "-m", "0700", "-o", "10001", "-g", "10001", "var", "keys"], cwd=tmp_path, check=True
    )
    for name in ("var", "keys"):
        status = (tmp_path / name).stat()
        assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (10001, 0o700)


def test_the_image_takes_only_what_the_servers_need() -> None:
    """The build context is a list of what goes in; state, keys, tests and history are not on it."""
    allowed = {line[1:] for line in read(".dockerignore").splitlines() if line.startswith("!")}
    assert "*" in read(".dockerignore").splitlines()
    assert not allowed & {"var", "keys", "secrets", "tests", ".git", ".env", "training"}
    needed = {"Makefile", "pyproject.toml", "requirements.lock"} | set(
        re.findall(r"(?m)^PACKAGES := (.*)$", MAKEFILE)[0].split()
    )
    assert needed | {"models"} <= allowed
    assert all((ROOT / name).exists() for name in allowed)


def test_containers_are_hardened() -> None:
    """Read-only root, no root user, no capabilities, no new privileges, a health check, time to stop: each of them."""
    services = compose()["services"]
    assert set(services) == {"store", "auth", "model"}
    for service in services.values():
        assert service["read_only"] is True
        assert not service["user"].startswith("0")
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["healthcheck"]["test"][0] == "CMD"
        assert int(service["stop_grace_period"].removesuffix("s")) >= 20
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:")


def test_the_composed_store_is_durable_and_alone_with_the_servers() -> None:
    """Append-only file, synced always, nothing evicted, on a volume; only the servers can reach it."""
    file = compose()
    command = " ".join(file["services"]["store"]["command"])
    assert "--appendonly yes --appendfsync always" in command
    assert "--maxmemory-policy noeviction" in command
    assert file["services"]["store"]["volumes"] == ["store:/data"]
    assert file["networks"]["store"]["internal"] is True
    assert [name for name, service in file["services"].items() if "store" in service["networks"]] == [
        "store",
        "auth",
        "model",
    ]


def test_the_composed_settings_are_known_and_secrets_are_files() -> None:
    """Every FLEX_ variable is a setting, production is on, and no secret is in the environment."""
    file = compose()
    known = {spec.metadata["env"] for spec in Settings.__dataclass_fields__.values()}
    for name in ("auth", "model"):
        environment = file["services"][name]["environment"]
        assert set(environment) <= known
        assert environment["FLEX_ENV"] == "production"
    assert file["services"]["auth"]["environment"]["FLEX_KEYS_PASSPHRASE_FILE"] == "/run/secrets/keys-passphrase"
    assert "file" in file["secrets"]["keys-passphrase"]
    for name in ("auth", "model"):
        assert file["services"][name]["command"] == ["python", "-m", server_part(Settings(), name).module]


@pytest.mark.skipif(
    shutil.which("docker") is None and shutil.which("docker-compose") is None, reason="no Docker client"
)
def test_the_client_accepts_the_compose_file() -> None:
    """`docker compose config` reads it, where the client has it."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if (
            shutil.which(command[0]) is None
            or subprocess.run([*command, "version"], capture_output=True, check=False).returncode
        ):
            continue
        done = subprocess.run(
            [*command, "-f", "compose.yaml", "config", "-q"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return
    pytest.skip("the Docker client has no compose")


# -- small tools -------------------------------------------------------------------------------------------------


def test_the_size_check_refuses_what_is_too_long(tmp_path: Path) -> None:
    """A file above 400 lines and a function above 60 are refused, 300 lines are only noted."""
    source = tmp_path / "source"
    source.mkdir()

    def check(content: str) -> tuple[int, str]:
        (source / "a.py").write_text(content)
        command = [sys.executable, str(ROOT / "tests" / "size_check.py"), "source"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    assert check("x = 1\n" * 250) == (0, "")
    assert check("x = 1\n" * 300)[0] == 0
    assert "300 lines" in check("x = 1\n" * 300)[1]
    assert check("x = 1\n" * 401)[0] == 1
    assert check("def f():\n" + "    x = 1\n" * 59) == (0, "")
    assert check("def f():\n" + "    x = 1\n" * 60)[0] == 1


def test_ci_is_a_script_that_ends_with_the_tests() -> None:
    """The runner stops at the first failure and ends with pytest's own closing line."""
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
    assert "set -euo pipefail" in CI
    assert CI.strip().endswith("make check\nmake test")
    done = subprocess.run(["bash", "-n", ROOT / ".ci" / "run"], check=False)
    assert done.returncode == 0
