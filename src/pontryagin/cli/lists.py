"""Lists on the command line."""


def names(text: str) -> tuple[str, ...] | None:
    """`a,b` as names; None for `all`."""
    return None if text == "all" else tuple(name.strip() for name in text.split(","))
