"""PyTorch's answers to the questions of ``capture.adapter``. Neither TensorFlow nor Keras is imported here."""
