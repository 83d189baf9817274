"""Environment of the naive stack: made once from its own lock, under ``.venv-bench-naive``, never mixed with ours."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
HERE = Path(__file__).with_name("naive")
LOCK = HERE / "requirements.lock"
ENVIRONMENT = ROOT / ".venv-bench-naive"
STAMP = "lock.sha256"


class NoNaiveEnvironmentError(Exception):
    """The environment is not there and could not be made; says why."""


def _lock_hash() -> str:
    return hashlib.sha256(LOCK.read_bytes()).hexdigest()


def is_there(environment: Path = ENVIRONMENT) -> bool:
    """Whether the environment exists and was made from today's lock."""
    stamp = environment / STAMP
    return stamp.is_file() and stamp.read_text() == _lock_hash() and (environment / "bin" / "python").exists()


def python(*, install: bool, environment: Path = ENVIRONMENT) -> Path:
    """Path of the environment's interpreter, after making it from the lock if need be (hashes checked).

    Raises NoNaiveEnvironmentError when it is missing and ``install`` is false, or when the packages can't be had.
    """
    interpreter = environment / "bin" / "python"
    if is_there(environment):
        return interpreter
    if not install:
        raise NoNaiveEnvironmentError("its environment is not installed; run without --quick once")
    shutil.rmtree(environment, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    install_command = [
        str(interpreter),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--require-hashes",
        "--only-binary",
        ":all:",
    ]
    done = subprocess.run([*install_command, "-r", str(LOCK)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoNaiveEnvironmentError(f"its packages could not be installed: {done.stderr.strip()[-300:]}")
    (environment / STAMP).write_text(_lock_hash())
    return interpreter
