"""From options to what makes a run this run."""

from pathlib import Path

import pytest

from client.api.configs import config_of
from client.api.options import DistillOptions
from client.data.domains import list_folder


@pytest.mark.parametrize("name", ["labels.csv", "names.txt"])
def test_a_file_behind_a_link_is_read_under_the_links_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.png").touch()
    (tmp_path / "stored").write_text("path,label\na.png,cat\n")  # as DVC keeps it
    link = tmp_path / "data" / name
    link.symlink_to("../stored")
    config = config_of(DistillOptions(data=link, method="erm"))
    assert list_folder(Path(config.data)) == list_folder(link)
    assert config.data == str(tmp_path.resolve() / "data" / name)
