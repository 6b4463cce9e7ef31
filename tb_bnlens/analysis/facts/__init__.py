"""What was measured of a run: each figure once, by name. No limit decides anything here but those of the formulas.

``Facts`` is a chain of classes, one idea a file: record, losses, stale, still, scatter, run. Each uses those before it.
"""

from tb_bnlens.analysis.facts.run import Facts

__all__ = ["Facts"]
