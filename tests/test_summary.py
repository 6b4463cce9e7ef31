"""The summary ops on their own, read back through the reader."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tb_bnlens import summary
from tb_bnlens.history import Event, Layer, Manifest
from tb_bnlens.metadata import CHANNEL_ROWS, LAYER_ROWS, LOSS_ROWS, PROBES
from tb_bnlens.reader import open_logdir, read_channels, read_run

MANIFEST = Manifest(
    layers=(Layer(0, "block/bn", 3, 0.99, 1e-3, access="model.bn"), Layer(1, "top", 2, 0.9, 1e-5, trainable=False)),
    planned_steps=100,
    batch_size=16,
    notes=("a note",),
    not_evaluated={"losses": "no loss"},
    ignore={"frozen": ("top",)},
    events=(Event(3, "unfreeze", "trainable set to True", (1,)),),
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    writer = tf.summary.create_file_writer(str(tmp_path / "run" / "bn_lens"))
    table = np.arange(2 * len(LAYER_ROWS), dtype=np.float32).reshape(2, -1) / 1000
    table[:, 0] = [1, 2]
    losses = {"train": {"training": 1.0, "inference": 15.0}, "validation": {"batch": 2.0}}
    snapshot = np.arange(12, dtype=np.float32).reshape(4, 3)
    with writer.as_default():
        assert summary.manifest(MANIFEST, 0)
        assert summary.layers(table, 5)
        assert summary.losses(summary.loss_table(losses), 5)
        assert summary.channels(0, snapshot, 5)
    writer.close()

    data = open_logdir(tmp_path)
    read = read_run(data, "", "run")
    assert read.manifest == MANIFEST and not read.problems
    np.testing.assert_array_equal(read.layers, table[None])
    assert read.loss("inference")[0] == 15 and read.loss("batch", "validation")[0] == 2
    assert np.isnan(read.loss("batch")[0])
    channels = read_channels(data, "", "run", 0)
    np.testing.assert_array_equal(channels.row(CHANNEL_ROWS[2])[0], snapshot[2])


def test_without_a_writer_nothing_is_written() -> None:
    # TensorFlow's default writer is the thread's; Keras' own callback leaves one behind in a fit that is interrupted.
    with ThreadPoolExecutor(1) as fresh:
        assert not fresh.submit(summary.layers, np.zeros((1, len(LAYER_ROWS))), 0).result()
        assert not fresh.submit(summary.losses, summary.empty_losses(), 0).result()


def test_paired_losses_are_plain_scalars_too(tmp_path: Path) -> None:
    with tf.summary.create_file_writer(str(tmp_path)).as_default():
        summary.losses(summary.loss_table({"train": {"batch": 0.5, "replay_0.9": 7.0}}), 3)
    (path,) = tmp_path.iterdir()
    values = {}
    for record in tf.compat.v1.io.tf_record_iterator(str(path)):
        for value in tf.compat.v1.Event.FromString(record).summary.value:
            values[value.tag] = (value.metadata.plugin_data.plugin_name, tf.make_ndarray(value.tensor))
    assert set(values) == {"bn_lens/losses", "bn_lens/loss/batch"}
    assert values["bn_lens/loss/batch"] == ("scalars", 0.5)
    assert values["bn_lens/losses"][0] == "bn_lens"


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (lambda: summary.layers(np.zeros((2, 3)), 0), r"layers has shape \(2, 3\); expected"),
        (lambda: summary.losses(np.zeros((1, len(LOSS_ROWS))), 0), "losses has 1 rows; expected one for each of"),
        (lambda: summary.losses(np.zeros((len(PROBES), 2)), 0), r"losses has shape \(2, 2\)"),
        (lambda: summary.channels(0, np.zeros((3, 5)), 0), r"channels has shape \(3, 5\); expected \(4, C\)"),
        (lambda: summary.loss_table({"train": {"accuracy": 1.0}}), "train/accuracy is not a known loss"),
        (lambda: summary.loss_table({"test": {"batch": 1.0}}), "test/batch is not a known loss"),
    ],
)
def test_what_does_not_fit_is_refused(write: object, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        write()  # type: ignore[operator]
