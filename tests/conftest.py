"""What all tests share: checked shapes, one thread, deterministic examples, `--run-slow` and `--extras`."""

import importlib

import checked_types

_CHECKED = ["affine", "problem", "trajectory", "hamiltonian", "maximizer", "distributed", "update", "optim",
            "export"]
"""Not diagnostics and audit: beartype draws from Python's generator, which these leave as it was."""
# before pontryagin is imported
checked_types.install([f"pontryagin.{name}" for name in _CHECKED])

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
    parser.addoption("--extras", action="store_true", help=(
        "run the tests that need a package which the extra dev does not bring, those alone; a missing "
        "package is an error"))


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--extras"):
        pytest.importorskip = importlib.import_module  # an ImportError where it would have skipped


_BEYOND_DEV = {"accelerate", "lightning", "pytorch_optimizer", "skorch", "tensorboard", "torchdiffeq",
               "transformers", "typeshed_client"}


def _needs_extra(item: pytest.Item) -> bool:
    """Marked so, or it asks for one of these packages by `pytest.importorskip`."""
    code = getattr(item, "function", _needs_extra).__code__
    asked = {str(name).partition(".")[0]
             for name in code.co_consts} if "importorskip" in code.co_names else set()
    return "extra" in item.keywords or bool(asked & _BEYOND_DEV)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if named := [item.nodeid for item in items if " at 0x" in item.nodeid]:
        raise pytest.UsageError(f"{named[0]}: processes have other addresses, so its parameters need ids")
    if config.getoption("--extras"):
        config.hook.pytest_deselected(items=[item for item in items if not _needs_extra(item)])
        items[:] = [item for item in items if _needs_extra(item)]
    if config.getoption("--run-slow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="slow: pass --run-slow"))
