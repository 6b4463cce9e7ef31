"""What the lens cannot measure on a model, as opposed to a fault."""


class NotEvaluated(Exception):
    """A part of the probe cannot be measured on this model; the message says why."""


class Refused(NotEvaluated):
    """An argument cannot be honoured without changing training; the message says what to pass instead."""


class NoMetrics(NotEvaluated):
    """The user has given no metrics."""


class NoLoss(NotEvaluated):
    """A pass gives no loss; its statistics are worth having without one. The message is a sentence for the user."""
