"""One file a cause: its sentences, evidence and fixes. No file here holds a limit or decides anything."""

from __future__ import annotations

from collections.abc import Mapping

from tb_bnlens.diagnosis.words import (
    alternating_domains,
    averaged_weights,
    batch_noise,
    before_after_update,
    collapsed_channels,
    cumulative_average,
    dominated_statistics,
    drift,
    dropout_gap,
    frozen_mismatch,
    frozen_weights_moving_statistics,
    ignores_statistics,
    inference_mode_layer,
    memorized_batches,
    mixed_conventions,
    momentum_too_high,
    momentum_too_low,
    moved_outside_training,
    never_updated,
    no_tracked_statistics,
    noisy_training,
    non_finite_statistics,
    overfitting,
    padded_rows,
    replica_spread,
    set_after_trace,
    short_last_batch,
    train_inference_gap,
    unlike_batches,
    unseen_updates,
    validation_shift,
    variance_shift,
    warming_up,
)
from tb_bnlens.diagnosis.words.words import Words

WORDS: Mapping[str, Words] = {
    module.__name__.rsplit(".", 1)[1].replace("_", "-"): module.WORDS
    for module in (
        alternating_domains,
        averaged_weights,
        batch_noise,
        before_after_update,
        collapsed_channels,
        cumulative_average,
        dominated_statistics,
        drift,
        dropout_gap,
        frozen_mismatch,
        frozen_weights_moving_statistics,
        ignores_statistics,
        inference_mode_layer,
        memorized_batches,
        mixed_conventions,
        momentum_too_high,
        momentum_too_low,
        moved_outside_training,
        never_updated,
        no_tracked_statistics,
        noisy_training,
        non_finite_statistics,
        overfitting,
        padded_rows,
        replica_spread,
        set_after_trace,
        short_last_batch,
        train_inference_gap,
        unlike_batches,
        unseen_updates,
        validation_shift,
        variance_shift,
        warming_up,
    )
}
"""Id of a cause -> its words."""
