"""``python -m model_server``: check the settings, then serve."""

import sys

from model_server.settings import ModelSettings
from shared import serve
from shared.settings import SettingsError


def main() -> None:
    """Serve until SIGTERM or Ctrl-C; exit 1 with every problem of the settings at once."""
    try:
        settings = ModelSettings.read()
    except SettingsError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        raise SystemExit(1) from None
    serve.run(
        "model_server.app:create_app",
        name="model",
        host=settings.model_host,
        port=settings.model_port,
        workers=settings.workers,
        var_dir=settings.var_dir,
    )


if __name__ == "__main__":
    main()
