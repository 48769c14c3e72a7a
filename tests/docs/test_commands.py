"""Every command line of `pontryagin` in README and docs is one that the command line takes; none is run."""

import re
import shlex
from pathlib import Path

import pytest

from pontryagin.cli.commands import called
from pontryagin.run.errors import ExperimentError

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_FENCED, _INDENTED = r"^```[a-z]*\n(.*?)^```", r"^    ((?:.*\\\n)*.*)$"


def lines_of(page: str) -> list[str]:
    """Command lines in blocks, fenced or indented, from the word `pontryagin` on; comments and what follows a
    redirection left out."""
    fenced = [line for block in re.findall(_FENCED, page, re.S | re.M)
              for line in block.replace("\\\n", " ").splitlines()]
    indented = [line.replace("\\\n", " ")
                for line in re.findall(_INDENTED, re.sub(_FENCED, "", page, flags=re.S | re.M), re.M)]
    found = []
    for line in fenced + indented:
        start = re.match(r"\s*(?:torchrun .*?-m )?pontryagin +(?!=)(.+)", line)
        if start:
            found.append(re.split(r"\s[>|]\s", start[1])[0])
    return found


COMMANDS = [(page.name, line) for page in PAGES for line in lines_of(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=[f"{page}: {line}"[:80] for page, line in COMMANDS])
def test_the_command_line_takes_it(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)
    try:
        path, call = called([word for word in words if word != "..."])
    except SystemExit:  # --help and its like
        return
    except ExperimentError as error:
        pytest.fail(f"{page}: pontryagin {line}: {error}")
    assert words[0] == path.split()[0]
    assert call.values


def test_command_lines_are_found() -> None:
    assert ("sine.md", "reproduce sine --out runs/sine") in COMMANDS
    assert any(line.startswith("train --resume") for page, line in COMMANDS if page == "distributed.md")
    assert lines_of("```\npontryagin train --a \\\n  b  # c\n```\n\n    pontryagin predict x > y\n") == [
        "train --a    b  # c", "predict x"]


def test_a_wrong_one_is_refused() -> None:
    with pytest.raises(ExperimentError, match="no option"):
        called(shlex.split("train --epoch 5"))
