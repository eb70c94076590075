"""Fault 7: the disk is full, or fails to sync."""

import pytest

from tests.support.chaos_disk import FailingSync, small_disk
from tests.support.chaos_world import assert_even, chaos_world

DISK_BYTES = 128 << 20
BALLAST_BYTES = 122 << 20
EXIT_IO_ERROR = 74


@pytest.mark.slow
@pytest.mark.parametrize("min_free_bytes", [0, 2 << 20], ids=["no room at all", "below min_free_bytes"])
async def test_a_full_disk_refuses_and_resumes_by_itself(min_free_bytes: int) -> None:
    async with chaos_world(overrides={"log": {"min_free_bytes": min_free_bytes}}) as world:
        with small_disk(world.data, DISK_BYTES):
            ballast = world.data / "ballast"
            ballast.write_bytes(bytes(BALLAST_BYTES))
            for receiver in world.receivers.values():
                await receiver.stop()
            await world.start()
            refused, accepted = world.injector.refused, world.injector.accepted
            async with world.load():
                await world.until(lambda: refused["452 4.3.1"] >= 20)
                before = len(accepted)
                ballast.unlink()
                await world.until(lambda: len(accepted) >= before + 20)
            assert before
            assert set(refused) == {"452 4.3.1"}
            assert not world.injector.lost_in, "the process did not stay up"
            for receiver in world.receivers.values():
                await receiver.start()
            balance = await world.settle()
            assert_even(world, balance)
            await world.close()


async def test_a_failed_sync_of_the_log_ends_the_process_and_is_not_repeated() -> None:
    async with chaos_world() as world:
        sync = FailingSync(world.system.folder, "log.sqlite-wal")
        world.environment = sync.environment
        await world.start()
        await world.injector.submit(20)
        await world.drained()
        sync.fail()
        assert await world.injector.send(world.injector.letter()) == ""
        await world.ended(crashed=True)
        assert world.status == EXIT_IO_ERROR
        assert [path.rsplit("/", 1)[-1] for path in sync.failures] == ["log.sqlite-wal"]
        sync.heal()
        await world.start()
        await world.injector.submit(20)
        balance = await world.settle()
        assert_even(world, balance)


async def test_a_large_body_that_cannot_be_synced_is_refused() -> None:
    async with chaos_world() as world:
        sync = FailingSync(world.system.folder, ".part")
        world.environment = sync.environment
        await world.start()
        sync.fail()
        reply = await world.injector.send(world.injector.letter(size_bytes=100_000))
        assert reply[:9] in {"451 4.3.0", "452 4.3.1"}
        assert len(sync.failures) == 1
        sync.heal()
        assert (await world.injector.send(world.injector.letter(size_bytes=100_000))).startswith("250")
        balance = await world.settle()
        assert_even(world, balance)
