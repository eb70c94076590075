"""The pod of `helm test` looks at a real ingress: content when all is well, and in words when it is not."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from tests.support.ingress import SUBMISSION, SUBMISSIONS, TRUSTED, running, settings
from tests.support.processes import free_port

SCRIPT = Path(__file__).resolve().parents[2] / "charts" / "postrail" / "files" / "submission.py"


async def look(*listeners: str) -> subprocess.CompletedProcess[str]:
    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-I", str(SCRIPT), "127.0.0.1", *listeners],
            env={**os.environ, "PATIENCE_SECONDS": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return await asyncio.to_thread(run)


async def test_listeners_that_are_well_pass(tmp_path: Path) -> None:
    async with running(tmp_path, settings(tmp_path)) as ingress:
        kinds = {"submission": SUBMISSION, "submissions": SUBMISSIONS, "trusted": TRUSTED}
        done = await look(*(f"{kind}:{ingress.port(number)}" for kind, number in kinds.items()))
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count(": ok") == 3
        assert await ingress.stored() == []


async def test_a_listener_that_takes_mail_without_signing_in_fails(tmp_path: Path) -> None:
    async with running(tmp_path, settings(tmp_path)) as ingress:
        done = await look(f"submission:{ingress.port(TRUSTED)}")
    assert done.returncode == 1
    assert "AUTH is not offered" in done.stdout or "STARTTLS" in done.stdout


async def test_nobody_answers() -> None:
    done = await look(f"submissions:{free_port()}")
    assert done.returncode == 1
    assert "are the ingress pods ready?" in done.stdout
