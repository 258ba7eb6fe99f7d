"""Threads for what may wait for an account: two of one account, whoever still waits for them."""

import asyncio
import threading

from vendor_service.api.account_threads import AccountThreads


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
            assert begun.acquire(timeout=5)
            assert begun.acquire(timeout=5)
            assert not begun.acquire(timeout=0.1)
            locked.set()
            assert await asyncio.wait_for(threads.do("locked", lambda: 8), 10) == 8
        finally:
            locked.set()
            threads.close()

    asyncio.run(flood())
