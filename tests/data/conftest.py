import pytest

from pontryagin.run.data import catalog


@pytest.fixture(autouse=True)
def _no_network(tmp_path_factory, monkeypatch):
    """An own empty cache, no mirrors, no folder of this machine's user."""
    monkeypatch.setenv("PONTRYAGIN_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("PONTRYAGIN_MIRRORS", "")
    monkeypatch.delenv("PONTRYAGIN_DATA", raising=False)


@pytest.fixture
def use_set(monkeypatch):
    """Put a data set into the catalog."""
    def use(wanted):
        monkeypatch.setitem(catalog.IMAGE_SETS, wanted.name, wanted)
        return wanted
    return use
