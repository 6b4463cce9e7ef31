"""What the lens cannot measure on a model, as opposed to a fault."""


class NotEvaluated(Exception):
    """A part of the probe cannot be measured on this model; the message says why."""


def first_line(error: Exception) -> str:
    """The kind of an error and the first line of what it says."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:300]}" if text else type(error).__name__
