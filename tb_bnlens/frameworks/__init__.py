"""What differs between training frameworks: which one a model belongs to, and whether it is supported."""
