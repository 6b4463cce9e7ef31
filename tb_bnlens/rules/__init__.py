"""One diagnosis a file; ``diagnose.diagnose`` runs them over a history."""
