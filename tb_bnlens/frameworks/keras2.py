"""What ``fit`` of Keras 2 asks of a callback beyond the methods of Keras 3."""

from __future__ import annotations


class Keras2Callback:
    """Lets a callback be given to ``fit`` of Keras 2 (tf_keras), which calls no batch method of it."""

    _supports_tf_logs = True
    """Logs need not be read for it at every step."""

    def _implements_train_batch_hooks(self) -> bool:
        return False

    def _implements_test_batch_hooks(self) -> bool:
        return False

    def _implements_predict_batch_hooks(self) -> bool:
        return False
