"""Formulas over a run's record: NumPy alone, one idea a module."""
