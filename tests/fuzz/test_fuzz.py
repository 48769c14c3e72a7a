"""Part of `make fuzz`: no request, however wrong, ends in another way than it must."""

import random

import pytest
import torch
from wrong_lines import line

from fuzz import complaint, fuzz


@pytest.mark.filterwarnings("ignore")
def test_hundreds_of_wrong_requests() -> None:
    threads = torch.get_num_threads()
    ends, wrong = fuzz(400, 60, 3)
    assert not wrong, "\n".join(wrong)
    assert ends.total() == 460
    assert ends["2"] > 300
    assert ends["begun"] > 10, "some are right"
    assert torch.get_num_threads() == threads


def test_what_ends_otherwise_is_told() -> None:
    assert complaint("2", "", "pontryagin: this is wrong\n", True) == ""
    assert "accepted" in complaint("begun", "", "", True)
    assert "accepted" in complaint("0", "", "", True)
    for how, out, err in (("2", "begun\n", "pontryagin: x\n"), ("2", "", "pontryagin: x\ny\n"),
                          ("2", "", "usage\n"), ("2", "", f"pontryagin: {'x' * 900}\n"),
                          ("KeyError: 3", "", ""), ("1", "", "")):
        assert complaint(how, out, err, False)


def test_requests_follow_from_the_seed() -> None:
    one, other = ([line(generator) for _ in range(50)] for generator in (random.Random(5), random.Random(5)))
    assert one == other
    assert len({tuple(words) for words, _, _ in one}) > 40
