"""Tables for a terminal: a name is shown as it is."""

import pytest

from client.cli.tables import print_table


@pytest.mark.parametrize("name", ["photos [old]", "x[/y]", ":cat:", "{3F25}", "a\x1b[2Jb"])
def test_a_name_is_shown_as_it_is_wherever_it_stands(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("class", name), [(name, 3)])
    shown = name.replace("\x1b", "?")
    header, row = (line for line in capsys.readouterr().out.splitlines() if shown in line)
    assert "class" in header
    assert "3" in row
