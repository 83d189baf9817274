"""Client secrets and the pepper they are hashed with."""

import subprocess
import sys
from pathlib import Path

import pytest

from auth_server.stores.client_secrets import PEPPER_FILE, SECRET_PREFIX, Pepper, load_pepper, new_secret
from shared.errors import AppError

MAKE_PEPPER = "import sys, pathlib; from auth_server.stores.client_secrets import load_pepper\nprint(load_pepper(pathlib.Path(sys.argv[1])).fingerprint)"


def test_a_secret_has_256_random_bits_and_a_prefix_for_scanners():
    """43 base64url characters behind the prefix; no two alike."""
    made = {new_secret().reveal() for _ in range(100)}
    assert len(made) == 100
    assert all(text.startswith(SECRET_PREFIX) and len(text) == len(SECRET_PREFIX) + 43 for text in made)


def test_the_hash_depends_on_the_secret_and_the_pepper():
    """A copy of the store without the pepper can't be tried against guesses."""
    one, other = Pepper(b"1" * 32), Pepper(b"2" * 32)
    assert one.secret_hash("x") == one.secret_hash("x") != one.secret_hash("y")
    assert one.secret_hash("x") != other.secret_hash("x")
    assert len(one.secret_hash("x")) == 32
    assert one.fingerprint != other.fingerprint
    assert "1111" not in repr(one) + str(one)


def test_the_pepper_is_made_once_and_is_its_owners_alone(tmp_path):
    """Folder 0700, file 0600, the same pepper at the next start."""
    keys = tmp_path / "keys"
    first = load_pepper(keys)
    assert (keys.stat().st_mode & 0o777, (keys / PEPPER_FILE).stat().st_mode & 0o777) == (0o700, 0o600)
    assert load_pepper(keys).fingerprint == first.fingerprint
    assert [entry.name for entry in keys.iterdir()] == [PEPPER_FILE]


def test_a_fresh_clones_folder_is_closed_to_others(tmp_path):
    """Version control keeps no folder modes."""
    keys = tmp_path / "keys"
    keys.mkdir(mode=0o755)
    (keys / ".gitkeep").touch()
    load_pepper(keys)
    assert keys.stat().st_mode & 0o777 == 0o700


def test_processes_that_start_at_once_end_with_one_pepper(tmp_path):
    """Six of them."""
    command = [sys.executable, "-c", MAKE_PEPPER, str(tmp_path / "keys")]
    root = Path(__file__).parents[3]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root) for _ in range(6)]
    assert len({process.communicate(timeout=30)[0] for process in started}) == 1
    assert [process.returncode for process in started] == [0] * 6
    assert [entry.name for entry in (tmp_path / "keys").iterdir()] == [PEPPER_FILE]


@pytest.mark.parametrize("harm", ["open to others", "a link", "too short"])
def test_a_pepper_that_others_could_know_or_choose_is_refused(tmp_path, harm):
    """As for private keys."""
    keys = tmp_path / "keys"
    load_pepper(keys)
    pepper = keys / PEPPER_FILE
    if harm == "open to others":
        pepper.chmod(0o644)
    elif harm == "a link":
        pepper.rename(tmp_path / "elsewhere")
        pepper.symlink_to(tmp_path / "elsewhere")
    else:
        pepper.write_bytes(b"short")
    with pytest.raises(AppError) as error:
        load_pepper(keys)
    assert error.value.code == "keys_unavailable"
