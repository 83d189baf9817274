"""``python -m auth_server``: run the auth server with settings from the environment."""

import sys

from auth_server.settings import AuthSettings
from shared.serve import run
from shared.settings import SettingsError


def main() -> None:
    """Serve until SIGTERM or Ctrl-C. Exit code 1 and one line a problem if the settings are wrong."""
    try:
        settings = AuthSettings.read()
    except SettingsError as wrong:
        for problem in wrong.problems:
            print(problem, file=sys.stderr)
        raise SystemExit(1) from None
    run(
        "auth_server.app:create_app",
        name="auth",
        host=settings.auth_host,
        port=settings.auth_port,
        workers=settings.workers,
        var_dir=settings.var_dir,
    )


if __name__ == "__main__":
    main()
