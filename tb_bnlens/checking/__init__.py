"""Judge a model without training: measure what a run's final measurement measures, and report on it."""
