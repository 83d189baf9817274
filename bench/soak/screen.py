"""What people see while a run goes on: one changing line on a terminal, else a line now and then."""

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console

LINE_EVERY_S = 15.0


@contextlib.contextmanager
def shown(title: str) -> Iterator[Callable[[str], None]]:
    """Give a function that tells how far the run is; everything goes to standard error."""
    console = Console(stderr=True, highlight=False)
    if console.is_terminal:
        with console.status(title) as status:
            yield lambda text: status.update(f"[bold]{title}[/]  {text}")
        return
    told_at = float("-inf")

    def tell(text: str) -> None:
        nonlocal told_at
        if time.monotonic() - told_at >= LINE_EVERY_S:
            told_at = time.monotonic()
            console.print(f"{title}: {text}", markup=False, soft_wrap=True)

    yield tell
