"""That the page of a run can be drawn again from the files in its folder."""

import shutil
from pathlib import Path

import pytest

from pontryagin.cli import main


def assert_drawn_again(folder: Path) -> None:
    """Byte by byte the page that the run has drawn, pictures in it."""
    page = (folder / "report.html").read_bytes()
    (folder / "report.html").unlink()
    shutil.rmtree(folder / "figures", ignore_errors=True)
    with pytest.raises(SystemExit) as ended:
        main(["report", str(folder)])
    assert not ended.value.code
    assert (folder / "report.html").read_bytes() == page
