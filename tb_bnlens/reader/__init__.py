"""TensorBoard's data provider -> ``History``: the only place that reads what the recorder wrote.

Never imports TensorFlow: a machine that only views runs has none.
"""

from tb_bnlens.reader.channels import read_channels
from tb_bnlens.reader.logdir import open_logdir
from tb_bnlens.reader.points import Unreadable
from tb_bnlens.reader.read import read_run
from tb_bnlens.reader.runs import Run, RunNotFound, find_run, list_runs, shown_name

__all__ = [
    "Run",
    "RunNotFound",
    "Unreadable",
    "find_run",
    "list_runs",
    "open_logdir",
    "read_channels",
    "read_run",
    "shown_name",
]
