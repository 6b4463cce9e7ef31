"""Runs just below and just above every named limit of the analysis and of the table of causes.

A case builds a run in which the figure that the limit is for is ``x`` times the limit, all else equal.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from tb_bnlens.analysis import (
    advice,
    arrival,
    batches,
    composition,
    drift,
    exchanged,
    lag,
    last_probes,
    loss_gap,
    measured,
    metrics,
    outlook,
    parts,
    rival,
    sudden,
    yardstick,
)
from tb_bnlens.analysis.facts import Facts
from tb_bnlens.analysis.facts import record as facts_record
from tb_bnlens.diagnosis import at_the_end, compositions, conditions, in_batches, severity
from tb_bnlens.history import Event, History
from tb_bnlens.metadata import LAYER_INDEX, REPLAY_MOMENTUMS, replay_row
from tests.diagnosis import runs
from tests.diagnosis.runs import CALM, FROZEN_OFF, PROBES, level, put, rows, run
from tests.simulation import SimLayer, band_locator, pose_network

Build = Callable[[float], History]
BELOW, ABOVE = 0.97, 1.03


# --- losses --------------------------------------------------------------------------------------------


def standard_errors(x: float) -> History:
    # The median of five values at -2 to 2 steps around theirs has this standard error, in steps.
    step = 1.0 / (x * loss_gap.STANDARD_ERRORS * 1.2533 * 1.4826 / math.sqrt(5.0))
    return put(level(), "inference", [2.0 + step * k for k in (-2, -1, 0, 1, 2)])


def odd_probes(x: float) -> History:
    count = loss_gap.WINDOW // 2 + (x > 1)
    return put(level(), "inference", [9.0] * count)


def old_probes(x: float) -> History:
    """Two bad probes at the end and three good ones, inside of the window's age or older."""
    history = put(level(), "inference", [9.0] * 2)
    steps = history.loss_steps.copy()
    oldest = (1.0 - last_probes.WINDOW_SHARE) * steps[-1]
    steps[-5:-2] = oldest - 10 * (x - 1) / 0.03 + np.arange(3)
    steps[-2] = steps[-1] - 1
    steps[:-5] = np.linspace(1, 400, len(steps) - 5)
    return replace(history, loss_steps=steps)


def few_probes(x: float) -> History:
    """One recent bad probe fewer than it takes, or as many."""
    recent = loss_gap.CORROBORATION - (x < 1)
    history = put(level(), "inference", [9.0] * recent)
    steps = history.loss_steps.copy()
    steps[:-recent] = np.linspace(1, 300, len(steps) - recent)
    return replace(history, loss_steps=steps)


def few_and_far(x: float) -> History:
    """A gap in the last three probes; only one of them is recent."""
    history = put(level(), "inference", [1 + x * loss_gap.BEYOND_DOUBT] * 3)
    steps = history.loss_steps.copy()
    steps[:-1] = np.linspace(1, 200, len(steps) - 1)
    return replace(history, loss_steps=steps)


def odd_jumps(x: float) -> History:
    """Batches that differ, where every so many probes of the second half are bad."""
    history = rows(level(), between_within=9.0)
    course = int(np.sum(history.loss_steps >= last_probes.SPREAD_SHARE * history.loss_steps[-1]))
    bad = round((1.0 - loss_gap.JUMP_QUANTILE) * (course - 1)) + (x > 1)
    start = len(history.losses) - course
    return put(history, "inference", [9.0] * bad, first=start)


def old_jumps(x: float) -> History:
    """The same, where four bad probes lie just before or just after the middle of the run."""
    history = rows(level(), between_within=9.0)
    middle = int(np.argmax(history.loss_steps >= last_probes.SPREAD_SHARE * history.loss_steps[-1]))
    return put(history, "inference", [9.0] * 4, first=middle if x > 1 else middle - 4)


def fallen(fall: float, batch: float, gap: float) -> History:
    """A loss that fell by so much after three probes."""
    history = level(batch=batch, inference=batch + gap, training=batch, recalibrated=batch)
    return put(history, "batch", [batch + fall] * 3, first=0)


def near_zero(x: float) -> History:
    batch, fall = 1e-3, 20.0
    geometric = math.sqrt(loss_gap.GEOMETRIC_SHARE * batch * fall)
    return fallen(fall, batch, x * loss_gap.WARNING_HARM * geometric)


def at_zero(x: float) -> History:
    return fallen(20.0, 0.0, x * loss_gap.WARNING_HARM * loss_gap.FLOOR_SHARE * 20.0)


def near_zero_of_classes(x: float) -> History:
    """The same where the targets are of two classes."""
    gap = x * loss_gap.WARNING_HARM * loss_gap.CLASS_SHARE * 0.69
    return put(fallen(0.69, 1e-3, gap), "target_entropy", [0.69] * PROBES)


def less_accurate(drop: float, growth: float, rows: int = 10**6) -> History:
    """A small gap of the loss, and an accuracy that drops so far and makes the rest to 1 so many times larger."""
    rest = drop / (growth - 1.0)
    accuracy = {"inference": {"accuracy": 1 - rest - drop}, "batch": {"accuracy": 1 - rest}}
    return runs.measured(level(), inference=1.05, batch=1.0, metrics=accuracy, batches=2, size=rows // 2)


def barely_beyond_chance(x: float) -> History:
    # A drop of 2/10 to 4/10 over N rows is sqrt(0.6 / N) at most by chance.
    return less_accurate(0.2, 2.0, round(0.6 * (x * metrics.BEYOND_CHANCE / 0.2) ** 2))


def in_few_rows(x: float) -> History:
    """One batch of twelve carries the difference, which the spread of batches does not tell and that of rows does."""
    carried = {"count": 384.0, "mean": 1.0, "deviation": 3.0, "share_of_top": x * measured.FEW_ROWS_CARRY}
    rows = {"batch": {"mean": 1.0, "q01": 0.0}, "inference-batch": carried}
    return runs.measured(level(), inference=[13.0] + [1.0] * 11, batch=1.0, recalibrated=2.0, samples=rows)


def leapt(x: float) -> History:
    """At the last record but one the statistics moved all at once, after windows at most 2 away."""
    history = run(CALM)
    farthest, distance = (history.layers[:, :, LAYER_INDEX[name]] for name in ("since_max", "distance_rms"))
    farthest[:], distance[:] = 2.0, 0.01
    farthest[-2], distance[-2:] = x * sudden.FARTHER * 2.0, 1.0
    history = replace(history, steps=np.append(history.steps[:-1], history.steps[-2] + 2))
    passes: dict[str, Any] = {"inference": 3.0, "batch": 1.0, "recalibrated": 1.0, "put_right__settled": 1.0}
    groups = {"updating": (0, 1, 2), "settled": (0, 1, 2)}
    return runs.measured(history, groups=groups, layers={"error_p95": [2.0] * 3}, **passes)


def few_batches(x: float, limit: int, **more: Any) -> History:
    count = limit - (x < 1)
    return runs.measured(level(), inference=9.0, batch=1 + 0.01 * np.arange(count), batches=count, **more)


def recomposed(x: float) -> History:
    """New compositions that do worse by so many standard errors: both losses go up and down by 0.2 over 12 batches."""
    error = math.sqrt(2.0) * 0.2 / math.sqrt(11.0)
    return runs.measured(
        level(), inference=1.6, batch=1.0, recombined=1.0 + x * rival.ERRORS_APART * error, scatter=0.2
    )


def cheaper_elsewhere(x: float) -> History:
    """Inference loses so many standard errors less on new compositions; see ``recomposed`` for the scatter."""
    error = math.sqrt(2.0) * 0.2 / math.sqrt(11.0)
    new = 1.0 + x * rival.GAPS_APART * error
    return runs.measured(level(), inference=1.6, batch=1.0, recombined=new, recombined_inference=1.6, scatter=0.2)


def of_one_target(x: float) -> History:
    """The targets of a row's company serve it by so much of what its own do, and inference is held against training."""
    swapped = 3.0 - x * rival.BY_COMPANY * (3.0 - 1.0)
    return runs.measured(level(), inference=1.6, batch=1.0, recombined=1.55, mismatched=3.0, swapped=swapped)


def held_in_training(x: float) -> History:
    """Frozen layers at fault, and a training pass that is nearer to batch statistics, or not."""
    training = 1.0 + rival.SAME_MODE * (9.0 - 1.0) / x
    return runs.measured(level(), inference=9.0, batch=1.0, batch_as_trained=9.0, training=training)


def unlike(start: float, probes: int = 3, **passes: Any) -> History:
    """Batches that differ, at a loss of 1, which began at so much."""
    history = put(level(), "batch", [start] * probes, first=0)
    passes = {"inference": 1.0, "batch": 1.0, **passes}
    return runs.measured(history, layers={"between_within": [9.0] * 3}, **passes)


def late_start(x: float) -> History:
    """The loss is high at the last probe that tells its start, or at the next one."""
    history = unlike(1.0)
    return put(history, "batch", [9.0], first=facts_record.FIRST_PROBES - (x < 1))


def noisy_training(start: float) -> History:
    history = put(level(), "batch", [start] * 3, first=0)
    layers = {"noise_mean": [0.7] * 3, "between_within": [0.9] * 3}
    return runs.measured(history, inference=0.7, batch=1.3, recombined=1.3, pooled=0.8, scatter=0.01, layers=layers)


def ordinary(x: float) -> History:
    """An ordinary row gains by statistics of all batches what ends the finding, or a little less."""
    stale = (2.0 - x) * composition.SMALLER_PART * 1.2
    return runs.dominated(rows={"inference-recalibrated": {"median": stale, "q10": 0.0, "q90": 1.0}})


def minority(x: float) -> History:
    limit = Facts(runs.dominated()).composition.dominance_limit  # type: ignore[union-attr]
    return runs.dominated(x * limit)


UPDATING = {"updating": (0, 1, 2), "settled": (0, 1, 2)}


def under_dropout(inference: float, share: float) -> History:
    """Statistics gathered under dropout make this share of a gap; those of the past make the rest."""
    rows = {"mode_distance_rms": 0.5, "with_dropout_distance_rms": 0.05, "distance_rms": 0.3}
    return runs.measured(
        run(CALM),
        groups=UPDATING,
        layers={name: [value] * 3 for name, value in rows.items()},
        inference=inference,
        batch=1.0,
        recalibrated=1.0,
        put_right__settled=1.0,
        with_dropout=1.0 + share * (inference - 1.0),
    )


def called_outside(times: int) -> History:
    """Changes between steps that were reported so many times, once in 50 steps, and then no more."""
    history = runs.measured(
        run(CALM),
        groups=UPDATING,
        layers={"error_p95": [2.0] * 3},
        inference=3.0,
        batch=1.0,
        recalibrated=1.0,
        put_right__settled=1.0,
    )
    events = tuple(Event(50 * k, "outside", "", (0, 1, 2)) for k in range(1, times + 1))
    return replace(history, manifest=replace(history.manifest, events=events))


def fed_apart(**other: float) -> History:
    """Layers that are called twice a step, on data of two kinds."""
    rows = {"update_explained": 0.8, "decay_observed": 0.81, "decay_expected": 0.9, "mode_distance_rms": 0.0, **other}
    return runs.measured(
        run(CALM),
        groups=UPDATING,
        layers={name: [value] * 3 for name, value in {"error_p95": 1.0, **rows}.items()},
        inference=3.0,
        batch=1.0,
        recalibrated=1.0,
        put_right__settled=1.0,
    )


# --- layers --------------------------------------------------------------------------------------------


def lagging(x: float, **noise: float) -> History:
    """A start that lingers, with an error of so many times its noise."""
    history = rows(band_locator(layers=3), last_only=False, **noise)
    return rows(history, error_p95=x * arrival.NOISE_SIGMAS * float(lag.table(history).error_noise.max()))


def lingering(x: float) -> History:
    """A lag whose initial part is about the share that counts; the statistics drift besides."""
    history = pose_network(steps=600)
    start = lag.table(history).start_error
    history.layers[-1, :, LAYER_INDEX["error_p50"]] = start / (lag.START_SHARE * x)
    history.layers[-1, :, LAYER_INDEX["error_p95"]] = 1.0
    return history


def long_ago(x: float) -> History:
    """Two calls that differ, measured once and then no more for so many records."""
    history = run(SimLayer(), noise_penalty=2.0, overrides={"call_alternation": 1.5})
    count = arrival.LOOK_BACK + (x > 1)
    layers = np.concatenate([history.layers[:1], np.repeat(history.layers[-1:], count - 1, axis=0)])
    layers[1:, :, LAYER_INDEX["call_alternation"]] = np.nan
    steps = np.arange(600 - count + 1, 601)
    return replace(history, layers=layers, steps=steps, wall_times=steps.astype(float))


def shifting(x: float) -> History:
    history = pose_network()
    noise = float(lag.latest(history, "shift_noise")[0])
    return rows(history, shift=x * float(drift.significance_limit(16)) * noise)


def scattering(layer: SimLayer, distance: float, **kwargs: Any) -> History:
    """Single batches that scatter so far about their mean."""
    return rows(run(layer, **kwargs), noise_mean=distance, noise_variance=0.0)


def pasted(x: float) -> History:
    return run(SimLayer(momentum=lag.LAST_BATCH / x, samples=1e5))


def jumping(x: float) -> History:
    scatter = x * conditions.SCATTER / math.sqrt(0.9 / 1.1)
    return put(scattering(SimLayer(momentum=0.1, samples=8), scatter, gain=10.0), "inference", [9.0] * 9)


def usable(x: float) -> History:
    """A run in which momentum 0.97 has converged after about the share that is allowed for."""
    history = band_locator(layers=3, probe=False)
    table = lag.table(history)
    needed = math.log(float((table.start_error / table.memory).max()) / 0.1) / -math.log(0.97)
    planned = round(x * needed / outlook.USABLE_SHARE)
    return replace(history, manifest=replace(history.manifest, planned_steps=planned))


# --- rules ---------------------------------------------------------------------------------------------


def shared(x: float, limit: float, **kwargs: Any) -> History:
    return run(SimLayer(), overrides={"call_alternation": x * limit}, **kwargs)


def without_replays(history: History) -> History:
    for momentum in REPLAY_MOMENTUMS:
        put(history, replay_row(momentum), [np.nan] * len(history.losses))
    return history


def swapped(x: float) -> History:
    """The last probe stands out from those before it, which scatter by a robust standard deviation of 0.14826."""
    history = without_replays(level())
    usual = 1.2 + 0.1 * np.resize([-1.0, 0.0, 1.0], PROBES)
    last = 1.2 + x * at_the_end.DEVIATIONS * 0.148260
    for kind in ("inference", "recalibrated"):
        put(put(history, kind, usual[: len(history.losses)], first=0), kind, [last])
    return history


def swapped_early(x: float) -> History:
    history = put(put(level(), "inference", [9.0]), "recalibrated", [9.0])
    before = exchanged.LEAST_BEFORE - (x < 1)
    steps = history.loss_steps.copy()
    steps[: -before - 1] = np.linspace(1, 250, len(steps) - before - 1)
    return replace(history, loss_steps=steps)


def swapped_and_replayed(x: float) -> History:
    history = put(put(without_replays(level()), "inference", [4.0]), "recalibrated", [4.0])
    history = put(put(history, "batch", [3.0]), "training", [3.0])
    return put(history, "replay_0.99", [x * at_the_end.LONGER_HELPS * 4.0])


def short(x: float, limit: float, usual: float, momentum: float) -> History:
    return run(SimLayer(momentum=momentum), overrides={"epoch_end_distance": x * limit, "since_min": usual})


def noisy_level(history: History, by: float) -> History:
    """Batch and inference losses that jump up and down together."""
    wave = by * np.resize([0.0, 1.0], len(history.losses))
    for kind in ("training", "batch", "inference", "recalibrated"):
        put(history, kind, 1.0 + wave, first=0)
    return history


def far_validation(x: float) -> History:
    history = noisy_level(run(CALM, start_loss=0.0, validation=(1.0, 1.0)), 2.0)
    measured = last_probes.measure(history)
    value = measured.typical["inference"] + x * in_batches.BATCH_SPREADS * measured.probe_noise
    for kind in ("batch", "inference"):
        put(history, kind, [value] * len(history.losses), first=0, probe=1)
    return history


CASES: dict[tuple[Any, str, str], Build] = {
    (loss_gap, "NOTE_HARM", "momentum-too-high"): lambda x: faint(x * loss_gap.NOTE_HARM),
    (loss_gap, "WARNING_HARM", "train-inference-gap"): lambda x: level(inference=1 + x * loss_gap.WARNING_HARM),
    (loss_gap, "ERROR_HARM", "train-inference-gap"): lambda x: level(inference=1 + x * loss_gap.ERROR_HARM),
    (loss_gap, "STANDARD_ERRORS", "train-inference-gap"): standard_errors,
    (loss_gap, "WINDOW", "train-inference-gap"): odd_probes,
    (last_probes, "WINDOW_SHARE", "train-inference-gap"): old_probes,
    (loss_gap, "CORROBORATION", "train-inference-gap"): few_probes,
    (loss_gap, "BEYOND_DOUBT", "train-inference-gap"): few_and_far,
    (loss_gap, "JUMP_QUANTILE", "unlike-batches"): odd_jumps,
    (last_probes, "SPREAD_SHARE", "unlike-batches"): old_jumps,
    (loss_gap, "GEOMETRIC_SHARE", "train-inference-gap"): near_zero,
    (loss_gap, "FLOOR_SHARE", "train-inference-gap"): at_zero,
    (loss_gap, "CLASS_SHARE", "train-inference-gap"): near_zero_of_classes,
    (last_probes, "LEAST_FALL", "train-inference-gap"): lambda x: fallen(x * last_probes.LEAST_FALL, 1.0, 0.06),
    (metrics, "DROP", "train-inference-gap"): lambda x: less_accurate(x * metrics.DROP, 1.6),
    (metrics, "GROWTH", "train-inference-gap"): lambda x: less_accurate(0.03, 1 + x * (metrics.GROWTH - 1)),
    (metrics, "LARGE_DROP", "train-inference-gap"): lambda x: less_accurate(x * metrics.LARGE_DROP, 2.1),
    (metrics, "LARGE_GROWTH", "train-inference-gap"): lambda x: less_accurate(0.06, x * metrics.LARGE_GROWTH),
    (metrics, "WHOLE_DROP", "train-inference-gap"): lambda x: less_accurate(x * metrics.WHOLE_DROP, 1.6),
    (metrics, "BEYOND_CHANCE", "train-inference-gap"): barely_beyond_chance,
    (measured, "FEWEST_BATCHES", "train-inference-gap"): lambda x: few_batches(x, measured.FEWEST_BATCHES),
    (measured, "FEW_ROWS_CARRY", "train-inference-gap"): in_few_rows,
    (sudden, "FARTHER", "moved-outside-training"): leapt,
    (rival, "ERRORS_APART", "train-inference-gap"): recomposed,
    (rival, "GAPS_APART", "train-inference-gap"): cheaper_elsewhere,
    (rival, "BY_COMPANY", "unlike-batches"): of_one_target,
    (rival, "SAME_MODE", "train-inference-gap"): held_in_training,
    (yardstick, "LEAST_BATCHES", "train-inference-gap"): (
        lambda x: (
            runs.measured(level(), inference=[9.0] * 4, batch=[2.0, 0.0, 2.0, 1.0], batches=4, size=10_000, samples={})
            if x > 1
            else runs.measured(level(), inference=[9.0] * 3, batch=[2.0, 0.0, 2.0], batches=3, size=10_000, samples={})
        )
    ),
    (facts_record, "FIRST_PROBES", "unlike-batches"): late_start,
    (composition, "MINORITY", "dominated-statistics"): minority,
    (composition, "FEWEST_ROWS", "dominated-statistics"): lambda x: runs.dominated(
        size=math.floor(x * composition.FEWEST_ROWS)
    ),
    (compositions, "LITTLE_LEARNED", "unlike-batches"): lambda x: unlike(1.0 / (x * compositions.LITTLE_LEARNED)),
    (compositions, "WELL_LEARNED", "noisy-training"): lambda x: noisy_training(0.7 / (x * compositions.WELL_LEARNED)),
    (composition, "SMALLER_PART", "dominated-statistics"): ordinary,
    (measured, "MOST", "variance-shift"): lambda x: under_dropout(2.2, x * measured.MOST),
    (measured, "LEAST", "variance-shift"): lambda x: under_dropout(5.0, x * measured.LEAST),
    (parts, "EXPLAINED", "unseen-updates"): lambda x: fed_apart(update_explained=parts.EXPLAINED / x),
    (parts, "MORE_UPDATES", "unseen-updates"): lambda x: fed_apart(decay_observed=0.9 ** (x * parts.MORE_UPDATES)),
    (parts, "REPORTED", "moved-outside-training"): lambda x: called_outside(parts.REPORTED - (x < 1)),
    (parts, "SAME_MODE", "unseen-updates"): lambda x: fed_apart(mode_distance_rms=x * parts.SAME_MODE),
    (arrival, "NOISE_SIGMAS", "momentum-too-high"): lambda x: lagging(x, noise_mean=0.17),
    (arrival, "VARIANCE_NOISE", "momentum-too-high"): lambda x: lagging(x, noise_variance=10.0),
    (lag, "START_SHARE", "drift"): lingering,
    (arrival, "LOOK_BACK", "alternating-domains"): long_ago,
    (lag, "LARGE_DISTANCE", "frozen-mismatch"): (
        lambda x: rows(run(FROZEN_OFF, gain=0.0), distance_rms=x * lag.LARGE_DISTANCE)
    ),
    (drift, "FALSE_ALARM_Z", "drift"): shifting,
    (drift, "INDEPENDENT_CHANNELS", "drift"): shifting,
    (batches, "ALIKE_LIMIT", "unlike-batches"): (
        lambda x: rows(run(SimLayer(), gain=2.0), between_within=x * batches.ALIKE_LIMIT * 32 / 31)
    ),
    (outlook, "USABLE_SHARE", "momentum-too-high"): usable,
    (lag, "LARGE_DISTANCE", "frozen-weights-moving-statistics"): (
        lambda x: runs.rows(runs.of_torch(run(CALM), trainable=False), start_distance=x * lag.LARGE_DISTANCE)
    ),
    (lag, "LAST_BATCH", "mixed-conventions"): lambda x: runs.of_torch(pasted(x)),
    (conditions, "SCATTER", "batch-noise"): (
        lambda x: scattering(SimLayer(samples=4), x * conditions.SCATTER, noise_penalty=2.0)
    ),
    (advice, "ENLARGED", "batch-noise"): lambda x: noisy(x * advice.ENLARGED),
    (lag, "LAST_BATCH", "momentum-too-low"): pasted,
    (conditions, "SCATTER", "momentum-too-low"): jumping,
    (in_batches, "CALL_NOISE_FACTOR", "alternating-domains"): (
        lambda x: shared(x, in_batches.CALL_NOISE_FACTOR * math.sqrt(3 / 32), noise_penalty=2.0)
    ),
    (in_batches, "NOTE_ALTERNATION", "alternating-domains"): (
        lambda x: shared(x, in_batches.NOTE_ALTERNATION, gain=0.0)
    ),
    (at_the_end, "OUTLIER", "short-last-batch"): lambda x: short(x, at_the_end.OUTLIER * 0.5, 0.5, 0.7),
    (at_the_end, "LAST_BATCH_SHARE", "short-last-batch"): (
        lambda x: short(x, at_the_end.LAST_BATCH_SHARE / 0.3, 0.01, 0.7)
    ),
    (at_the_end, "DEVIATIONS", "averaged-weights"): swapped,
    (exchanged, "LEAST_BEFORE", "averaged-weights"): swapped_early,
    (at_the_end, "LONGER_HELPS", "averaged-weights"): lambda x: swapped_and_replayed(1 / x),
    (in_batches, "COLLAPSED_SHARE", "collapsed-channels"): (
        lambda x: rows(run(replace(CALM, channels=40), gain=0.0), channels_collapsed=1.0 if x < 1 else 2.0)
    ),
    (in_batches, "TRAINING_ONLY_HARM", "dropout-gap"): (
        lambda x: level(training=1 + x * in_batches.TRAINING_ONLY_HARM)
    ),
    (in_batches, "BATCH_SPREADS", "overfitting"): far_validation,
    (in_batches, "FARTHER_OFF", "validation-shift"): lambda x: rows(
        run(CALM, validation=(1.2, 5.0)), distance_rms=0.5, validation_distance_rms=x * in_batches.FARTHER_OFF * 0.5
    ),
    (conditions, "WINDOW_FACTOR", "set-after-trace"): (
        lambda x: rows(run(CALM), momentum_effective=1 - 0.1 * x * conditions.WINDOW_FACTOR)
    ),
    (severity, "ESTIMATE_DISTANCE", "momentum-too-high"): (
        lambda x: rows(band_locator(layers=3, probe=False), distance_rms=x * severity.ESTIMATE_DISTANCE)
    ),
}
"""(module, limit, the cause that it decides for) -> a run whose figure is x times the limit."""


def noisy(wanted: float) -> History:
    """Batches of 4 whose noise costs so much that batches of this size are wanted."""
    penalty = loss_gap.WARNING_HARM * wanted / 4
    return run(SimLayer(samples=4), noise_penalty=penalty, gain=0.0, loss_noise=0.0, start_loss=0.0)


def faint(gap: float) -> History:
    """A start that lingers in statistics which are off by less than what counts as large."""
    history = level(SimLayer(momentum=0.999, true_variance=0.4), inference=1.0 + gap)
    return rows(history, distance_rms=0.1)


@functools.cache
def above_each() -> tuple[History, ...]:
    """A run just above each limit."""
    return tuple(build(ABOVE) for build in CASES.values())


def cases_of(cause: str) -> dict[str, Build]:
    """Limits that decide for a cause, by name."""
    return {name: build for (_, name, rule), build in CASES.items() if rule == cause}
