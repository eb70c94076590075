"""A real S3 server, usually on loopback (Versity's gateway over a folder), which tests stop, kill and start again.

Owns its start and what lies in its folder. `tools/s3_server.py` builds the program; a test that needs it skips on a laptop where
it was not built, and fails in the CI.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGCONT, SIGSTOP

import pytest
from pydantic import SecretStr

from postrail.core.blobs_config import S3Config
from tests.support.processes import Daemon, accepts, free_port
from tests.support.tools import in_ci
from tools.s3_server import server

ACCESS_KEY = "postrail-test"
SECRET_KEY = "a secret of the test"
BUCKET = "bodies"


class S3Server:
    """One server and its bucket."""

    def __init__(self, program: Path, folder: Path, address: str, port: int) -> None:
        self.folder = folder
        self.address = address
        self.port = port or free_port()
        self._program = program
        (folder / "buckets" / BUCKET).mkdir(parents=True)
        self._daemon = self._start()

    @property
    def endpoint(self) -> str:
        """Where it answers."""
        return f"http://{self.address}:{self.port}"

    def config(self, **changes: object) -> S3Config:
        """The section blobs.s3 for it, with short times."""
        values: dict[str, object] = {
            "bucket": BUCKET,
            "prefix": "mail",
            "endpoint": self.endpoint,
            "access_key_id": SecretStr(ACCESS_KEY),
            "secret_access_key": SecretStr(SECRET_KEY),
            "allow_http": True,
            "request_timeout_seconds": 1.5,
            "write_timeout_seconds": 4.0,
        }
        return S3Config.model_validate({**values, **changes})

    def objects(self) -> dict[str, Path]:
        """The objects in the bucket, by their keys."""
        root = self.folder / "buckets" / BUCKET
        found = [path for path in root.rglob("*") if path.is_file()]
        return {str(path.relative_to(root)): path for path in found if ".sgwtmp" not in path.parts}

    def parts(self) -> list[Path]:
        """What unfinished uploads have left in the bucket."""
        root = self.folder / "buckets" / BUCKET / ".sgwtmp"
        return [path for path in root.rglob("*") if path.is_file()]

    def kill(self) -> None:
        """End it at once."""
        self._daemon.kill()

    def start(self) -> None:
        """Start it again, with what it had."""
        self._daemon = self._start()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """It takes connections and answers nothing."""
        self._daemon.send_signal(SIGSTOP)
        try:
            yield
        finally:
            self._daemon.send_signal(SIGCONT)

    def _start(self) -> Daemon:
        taken = f"{self.address}:{self.port} is taken, by a server that an ended run left behind? End it and run again"
        assert not accepts(self.address, self.port), taken
        keys = ["--access", ACCESS_KEY, "--secret", SECRET_KEY]
        place = ["--port", f"{self.address}:{self.port}", "--keep-alive", "--quiet"]
        daemon = Daemon(
            [self._program, *place, *keys, "posix", self.folder / "buckets"],
            self.folder / "s3.log",
            environment={"GOMAXPROCS": "2"},
        )
        daemon.wait_until("it accepts connections", lambda: accepts(self.address, self.port))
        return daemon


@contextmanager
def s3_server(folder: Path, address: str = "127.0.0.1", port: int = 0) -> Iterator[S3Server]:
    """A server that keeps its objects in the folder; skips or fails the test where the program is missing."""
    program = server()
    if program is None:
        reason = "the S3 server is missing; build it once, in about 3 minutes, with: make object-storage"
        if in_ci():
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    running = S3Server(program, folder, address, port)
    try:
        yield running
    finally:
        running.kill()
