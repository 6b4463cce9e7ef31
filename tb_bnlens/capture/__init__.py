"""The TensorFlow side: what is read of a model in training, and when."""
