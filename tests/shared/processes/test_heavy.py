"""Heavy inputs in processes of their own, which give way to all else."""

import asyncio
from pathlib import Path

from shared.processes.pool import PoolSpec
from shared.processes.pools import ProcessPools
from tests.shared.processes.scripted_tasks import Notes, ScriptedTask
from tests.shared.processes.test_processes import LAYOUT, done, linux, run, server
from tests.support.vendor_process import below


@linux
def test_heavy_inputs_keep_no_process_from_others_and_give_way() -> None:
    task = ScriptedTask()
    spec = PoolSpec(1, task, LAYOUT, of_heavy=PoolSpec(1, task, LAYOUT, niceness=10))
    processes = ProcessPools({"image": spec}, Notes())
    processes.start()

    async def work() -> None:
        heavy = asyncio.create_task(done(processes, b"long:600", b"large:0", account="a"))
        assert await done(processes, b"one", b"two", account="b") == ["one", "two"]  # one process has none
        while processes.waiting("image") != 1:
            await asyncio.sleep(0.01)
        assert not heavy.done()
        heavy.cancel()
        await asyncio.wait([heavy])

    try:
        run(work)
        stats = [Path(f"/proc/{pid}/stat").read_text() for pid in below(server(processes))]
        nices = [int(stat.rpartition(")")[2].split()[16]) for stat in stats]
        assert sorted(nices) == [min(nices), min(nices) + 10]
    finally:
        processes.close()
