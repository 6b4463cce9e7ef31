"""Moving and batch statistics of all layers in one vector: what follows from them, in NumPy alone."""
