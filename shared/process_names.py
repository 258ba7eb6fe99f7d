"""Names of processes, as `ps` and `top` show them."""

from contextlib import suppress
from pathlib import Path

_SELF = Path("/proc/self")
_LONGEST = 15  # of a process's short name, in bytes
_BEGIN, _END = 45, 46  # of the arguments in memory, among the numbers behind the name in /proc/self/stat


def name_process(name: str) -> None:
    """Have `ps` and `top` call this process by a name, if its first thread says so; only Linux does.

    The name takes the place of the arguments that the process was started with, as far as it fits there.
    """
    with suppress(OSError, ValueError, IndexError):
        (_SELF / "comm").write_bytes(name.encode()[:_LONGEST])
        numbers = (_SELF / "stat").read_text().rpartition(") ")[2].split()
        begin, size = int(numbers[_BEGIN]), int(numbers[_END]) - int(numbers[_BEGIN])
        arguments = (_SELF / "cmdline").read_bytes()
        with (_SELF / "mem").open("r+b", buffering=0) as memory:
            memory.seek(begin)
            if memory.read(size) == arguments:
                memory.seek(begin)
                memory.write(name.encode()[: size - 1].ljust(size, b"\0"))
