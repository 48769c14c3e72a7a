"""What all tests share: checked shapes, one thread, deterministic examples, and `--run-slow`."""

from jaxtyping import install_import_hook

_CORE = ["problem", "trajectory", "hamiltonian", "maximizer", "distributed", "update"]
install_import_hook([f"pontryagin.{name}" for name in _CORE], "beartype.beartype")  # before pontryagin is imported

import hypothesis  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)
hypothesis.settings.register_profile(
    "repeatable", derandomize=True, deadline=None, max_examples=20, database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-slow", action="store_true", help="run the tests marked slow too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--run-slow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="slow: pass --run-slow"))
