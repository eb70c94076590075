"""Fault 6: the order of system calls: what a 250 promises is synced before it is written."""

import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from tests.support import chaos_syscalls
from tests.support.chaos_broken import EARLY_250
from tests.support.chaos_world import ChaosWorld, chaos_world
from tests.support.tools import in_ci, require_tool

INLINE = 2000
ABOVE_A_PAGE = 20_000
BLOB = 300_000


@pytest.fixture
def strace() -> str:
    """The tracer, if it may trace."""
    program = require_tool("strace", "it shows the order of system calls")
    done = subprocess.run([program, "true"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = f"strace may not trace here (a container needs --cap-add SYS_PTRACE): {done.stderr.strip()[-200:]}"
        if in_ci():
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return program


@asynccontextmanager
async def traced(strace: str, *breakages: str) -> AsyncIterator[ChaosWorld]:
    async with chaos_world(*breakages) as world:
        world.command = (*chaos_syscalls.command(strace, world.system.folder), *world.command)
        await world.start()
        yield world


async def submit(world: ChaosWorld, size_bytes: int) -> tuple[str, str, str]:
    """Submit a message; returns its 250, and what stands at the begin and at the end of its body."""
    letter = world.injector.letter("alpha.example", size_bytes=size_bytes)
    begin, end = f"begin-of-{letter.ledger_id}", f"end-of-{letter.ledger_id}"
    header, _, body = letter.content.partition(b"\r\n\r\n")
    # Twice, so that one is whole wherever the log's pages divide the body.
    content = b"".join([header, b"\r\n\r\n", f"{begin} {begin}\r\n".encode(), body, f"{end} {end}\r\n".encode()])
    reply = await world.injector.send(replace(letter, content=content))
    assert reply.startswith("250")
    return reply, begin, end


@pytest.mark.slow
async def test_everything_is_synced_before_each_250(strace: str) -> None:
    async with traced(strace) as world:
        sent = [await submit(world, size_bytes) for size_bytes in (INLINE, ABOVE_A_PAGE, BLOB) * 5]
        await world.settle()
        calls = chaos_syscalls.read(world.system.folder)
        assert [chaos_syscalls.out_of_order(calls, *one) for one in sent] == [[]] * len(sent)
        assert any(call.path.endswith(".part") for call in calls), "no message went to the blob store"


@pytest.mark.slow
async def test_a_250_before_the_sync_is_seen(strace: str) -> None:
    async with traced(strace, EARLY_250) as world:
        sent = [await submit(world, size_bytes) for size_bytes in (INLINE, ABOVE_A_PAGE, BLOB)]
        await world.settle()
        calls = chaos_syscalls.read(world.system.folder)
        assert all(chaos_syscalls.out_of_order(calls, *one) for one in sent)
