"""What differs between training frameworks: which one a model is of, and whether it is supported."""
