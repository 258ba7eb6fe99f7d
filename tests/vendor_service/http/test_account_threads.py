"""Threads for what may wait for an account: two of one account, whoever still waits; reads have their own."""

import asyncio
import threading

from vendor_service.http.account_threads import AccountThreads


def test_who_leaves_keeps_the_thread_until_the_call_has_ended_and_others_are_served() -> None:
    locked, begun = threading.Event(), threading.Semaphore(0)

    def wait() -> None:
        begun.release()
        assert locked.wait(30)

    async def flood() -> None:
        threads = AccountThreads()
        try:
            for _ in range(20):
                call = asyncio.create_task(threads.do("locked", wait))
                await asyncio.sleep(0.01)
                call.cancel()
            assert await asyncio.wait_for(threads.do("other", lambda: 7), 10) == 7
            assert await asyncio.wait_for(threads.read("locked", lambda: 9), 10) == 9
            assert begun.acquire(timeout=5)
            assert begun.acquire(timeout=5)
            assert not begun.acquire(timeout=0.1)
            locked.set()
            assert await asyncio.wait_for(threads.do("locked", lambda: 8), 10) == 8
        finally:
            locked.set()
            threads.close()

    asyncio.run(flood())


def test_one_account_has_one_thread_to_read_and_others_have_theirs() -> None:
    go, begun = threading.Event(), threading.Semaphore(0)

    def read() -> None:
        begun.release()
        assert go.wait(30)

    async def flood() -> None:
        threads = AccountThreads()
        try:
            reading = [asyncio.create_task(threads.read("greedy", read)) for _ in range(20)]
            assert await asyncio.wait_for(threads.read("other", lambda: 7), 10) == 7
            assert begun.acquire(timeout=5)
            assert not begun.acquire(timeout=0.1)
            go.set()
            await asyncio.wait_for(asyncio.gather(*reading), 10)
        finally:
            go.set()
            threads.close()

    asyncio.run(flood())
