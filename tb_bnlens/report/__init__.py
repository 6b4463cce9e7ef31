"""History -> one JSON-able report, and what is made of it: text for a terminal, the comparison of two runs."""

from tb_bnlens.report.build import build_report, run_report

__all__ = ["build_report", "run_report"]
