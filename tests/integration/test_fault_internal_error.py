"""What submission answers when it has a fault of its own: 421 4.3.0, and nothing is stored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from postrail.log.interface import Append, Log, Position
from tests.support.ingress import connect, in_thread, running, settings


class FaultyLog:
    """The log, with a fault that nobody has thought of, in the first append."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._is_faulty = True

    async def append(self, appends: Sequence[Append]) -> list[Position]:
        if self._is_faulty:
            self._is_faulty = False
            raise RuntimeError("a fault of ours")
        return await self._log.append(appends)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


async def test_an_internal_error_is_421_and_harms_no_other_session(tmp_path: Path) -> None:
    async with running(tmp_path, settings(tmp_path), wrap=FaultyLog) as ingress:

        def submit(client: Any) -> str:
            client.say("MAIL FROM:<a@example.com>")
            client.say("RCPT TO:<b@example.org>")
            client.say("DATA")
            return str(client.content(b"From: a@example.com\r\n\r\n.\r\n"))

        def talk() -> tuple[str, bytes, str]:
            with connect(ingress) as other:
                client = connect(ingress)
                refused = submit(client)
                assert client.sock is not None
                end = client.sock.recv(100)
                client.close()
                return refused, end, submit(other)

        refused, end, accepted = await in_thread(talk)
        assert refused.startswith("421 4.3.0 ")
        assert end == b"", "the session is closed"
        assert accepted.startswith("250 ")
        assert len(await ingress.stored()) == 1
