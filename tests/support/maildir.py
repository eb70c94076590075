"""Reads the maildirs that Postfix and Dovecot deliver into."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Maildir:
    """A mailbox; it need not exist yet."""

    folder: Path

    def messages(self) -> list[bytes]:
        """All messages, oldest first, with CRLF line ends as they had on the wire."""
        files: list[Path] = []
        for part in ("new", "cur"):
            if (self.folder / part).is_dir():
                files += (self.folder / part).iterdir()
        files.sort(key=lambda path: (path.stat().st_mtime_ns, path.name))
        return [path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") for path in files]
