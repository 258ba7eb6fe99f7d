"""How a batch is shared. tests/end_to_end/test_processes.py has real processes share real batches."""

import pytest
import torch

from client.errors import UsageError
from client.learning.processes import ALONE, even_share


def test_every_row_is_some_process_s_and_no_row_is_two() -> None:
    shares = [list(range(12))[even_share(12, rank, 3)] for rank in range(3)]
    assert shares == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    with pytest.raises(UsageError, match="divides 13"):
        even_share(13, 0, 3)


def test_a_process_alone_does_everything() -> None:
    rows = torch.arange(5.0, requires_grad=True)
    assert ALONE.whole(rows) is rows
    assert list(range(5))[ALONE.share(5)] == [0, 1, 2, 3, 4]
    assert ALONE.once(lambda: 7) == 7
    assert ALONE.spread([3, 1], lambda items: torch.tensor(items) * 2).tolist() == [6, 2]
