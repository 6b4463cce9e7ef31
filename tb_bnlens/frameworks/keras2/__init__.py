"""What is Keras 2's own (``tf_keras``, and ``tf.keras`` with TF_USE_LEGACY_KERAS=1)."""
