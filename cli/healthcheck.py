"""``python -m cli.healthcheck URL``: exit 0 if the URL answers 200 within 3 s. For containers, which have no curl."""

import sys
import urllib.request

_TIMEOUT_S = 3.0


def main(arguments: list[str]) -> int:
    """Give the exit code: 0 healthy, 1 not, 2 wrong usage; what was wrong goes to standard error."""
    if len(arguments) != 1 or not arguments[0].startswith(("http://", "https://")):
        print("usage: python -m cli.healthcheck URL", file=sys.stderr)
        return 2
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(arguments[0], timeout=_TIMEOUT_S) as answer:
            return int(answer.status != 200)
    except (OSError, ValueError) as problem:
        print(problem, file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
