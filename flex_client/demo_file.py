"""The file with which a development server hands its demo client to callers on the same machine."""

import json
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class DemoFile:
    """What the file says: who the client is, where its tokens come from, and what they are for."""

    client_id: str
    client_secret: str = field(repr=False)
    token_endpoint: str
    resource: str | None = None
    scope: str | None = None

    @classmethod
    def read(cls, path: str | Path) -> "DemoFile":
        """Read the file. Raises OSError, or ValueError if it is not such a file."""
        try:
            members = json.loads(Path(path).read_text(encoding="utf-8"))
            needed = [members[name] for name in ("client_id", "client_secret", "token_endpoint")]
            optional = [members.get(name) for name in ("resource", "scope")]
        except (ValueError, KeyError, TypeError):
            needed, optional = [None], []
        if not all(isinstance(text, str) for text in needed):
            raise ValueError(f"{path} does not hold client_id, client_secret and token_endpoint")
        return cls(*needed, *optional)
