"""Pictures of a run. Modules that draw import matplotlib, so they are imported by functions, when something
is to be drawn."""

from pontryagin.run.errors import MissingExtraError, need


def left_out() -> str:
    """Why figures cannot be drawn, in one line; nothing where they can."""
    try:
        need("matplotlib", "drawing")
    except MissingExtraError as error:
        return f"Without figures: {error}"
    return ""
