"""Names of admissible sets that mean the same."""

_SPELLINGS = {"3-bit": "int3", "4-bit": "int4", "8-bit": "int8", "2:4-sparse": "2:4"}


def set_name(name: str) -> str:
    """The name under which tables of sets have it."""
    return _SPELLINGS.get(name, name)
