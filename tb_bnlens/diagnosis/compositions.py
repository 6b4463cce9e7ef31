"""What the causes that lie in the batches ask of the facts: how rows are put together, and which set the statistics."""

from __future__ import annotations

import math

import numpy as np

from tb_bnlens.analysis import robust
from tb_bnlens.analysis.composition import SMALLER_PART, Composition
from tb_bnlens.analysis.facts import Facts
from tb_bnlens.analysis.lag import LARGE_DISTANCE
from tb_bnlens.analysis.loss_gap import ERROR_HARM, NOTE_HARM, WARNING_HARM
from tb_bnlens.diagnosis import conditions as on
from tb_bnlens.diagnosis import in_batches
from tb_bnlens.diagnosis.cause import Mask
from tb_bnlens.diagnosis.severity import Severity, of_gap

NONE, INFO, WARNING, ERROR = Severity

FEW_ROWS = 1.0 / math.sqrt(8.0)
"""The mean of a batch of eight independent rows scatters by this many standard deviations of a row."""
LITTLE_LEARNED = 0.5
"""Training has not halved the loss."""
WELL_LEARNED = 0.25
"""Training has left a quarter of the loss."""


def measured(f: Facts) -> bool:
    """The run was measured on many batches."""
    return f.composition is not None


def composition(f: Facts) -> Composition:
    """The figures; only where ``measured``."""
    assert f.composition is not None
    return f.composition


# --- layers that do not use their moving statistics ----------------------------------------------------


def by_batch_at_inference(f: Facts) -> Mask:
    """Layers that normalize by the batch in inference mode."""
    return composition(f).by_batch_at_inference


def known_at_inference(f: Facts) -> bool:
    """Whether the inference pass was traced."""
    return measured(f) and f.evidence is not None and "batch_at_inference" in f.evidence.layers


def loss_alone(f: Facts, _where: Mask) -> Severity:
    """What single rows lose, which have no batch."""
    return of_gap(composition(f).alone)


# --- batches that differ ------------------------------------------------------------------------


def unlike(f: Facts) -> Mask:
    """Layers whose batch means differ; or the run, where it is the batches' losses or targets, or those of the past."""
    if f.composition is None or f.measured is None:
        return f.batches.unlike
    c = f.composition
    layers = f.measured.unlike if f.measured.unlike.any() else c.unlike_variances
    run = c.differ or c.on_past.at_least(NOTE_HARM) or past_explains(f)
    return on.whole_run(True) if run and not layers.any() else layers


def past_explains(f: Facts) -> bool:
    """Newer statistics serve, and more than the tolerance is left of data before a change, most of it not the start."""
    start = float(np.nan_to_num(robust.median(f.layers.memory[f.layers.updating])))
    of_data = f.left_of_past - start
    return of_data > max(start, f.layers.tolerance) and of_gap(f.gap) > INFO and mostly_stale(f)


def differ_now(f: Facts, _where: Mask) -> bool:
    """The measured batches differ, or the gap is due to those before the data changed."""
    return f.composition is None or f.composition.differ or past_explains(f)


def order_takes_the_gap(f: Facts, where: Mask) -> bool:
    """They do, and that takes as much as the whole gap."""
    return differ_now(f, where) and cost_of_order(f, unlike(f)) >= of_gap(f.gap)


def order_known(f: Facts) -> bool:
    """Whether batches that differ would have been told from random ones, by their means or by their losses."""
    if f.composition is None or f.measured is None:
        return not np.isnan(f.batches.overall).all()
    c = f.composition
    return c.differ or c.on_past.known or c.losses_comparable


def cost_of_order(f: Facts, where: Mask) -> Severity:
    """The gap; or, at most a warning, what the order of the data takes from training itself."""
    c = f.composition
    if c is None:
        return in_batches.worst_turn(f, where)
    if not c.differ:
        # Nothing tells whether the model is still for data like those from before: that they are not served is a note.
        return of_gap(f.gap) if past_explains(f) else NONE
    # One class at a time leaves little to learn: normalizing removes what tells whole batches apart.
    hampered = c.hampered.at_least(NOTE_HARM) or c.left(trained(f)) > LITTLE_LEARNED
    some = max(of_gap(c.uneven), of_gap(c.in_some))
    return max(of_gap(f.gap), min(some, WARNING), WARNING if hampered else NONE)


def trained(f: Facts) -> str:
    """The pass that shows what training sees."""
    return f.measured.trained if f.measured is not None else "batch"


def start_explains(f: Facts, _where: Mask) -> bool:
    """The statistics are still those of the start, and newer ones serve although the batches differ."""
    starting = f.measured is not None and bool(f.measured.group("from_start"))
    return starting and mostly_stale(f) and not past_explains(f)


def mostly_stale(f: Facts) -> bool:
    """Recalibrating takes the larger part of the gap away."""
    return f.share(f.stale) >= SMALLER_PART


def order_explains(f: Facts, _where: Mask) -> bool:
    """Newer statistics do not serve, since the batches differ from each other; or the data changed, and these do."""
    return measured(f) and ((composition(f).differ and not mostly_stale(f)) or past_explains(f))


def order_sets_last_batch(f: Facts, where: Mask) -> bool:
    """The batches of these layers differ anyway, so the last one of an epoch is far off for no want of rows."""
    return bool((where & unlike(f)).any())


def order_limits_memory(f: Facts, where: Mask) -> bool:
    """A longer memory helps only because neighbouring batches are similar: the momentum itself is not low."""
    return differ_now(f, where) and f.lowest_momentum > on.PASTED and cost_of_order(f, where) >= on.jumps(f, where)


# --- rows that set the statistics ----------------------------------------------------------------------


def dominance_known(f: Facts) -> bool:
    """A minority of the measured batches was told from the others, or one that is not among them."""
    return measured(f) and (set_by_few(f) or (composition(f).ordinary.known and padding_known(f)))


def set_by_few(f: Facts) -> bool:
    """A few batches set the statistics that are not among the measured ones, where those explain no harm."""
    return f.rest_is == "few" and not (composition(f).dominated.any() and _cost_of_measured(f) > INFO)


def dominated(f: Facts) -> Mask:
    """Layers whose statistics a minority of the batches sets."""
    return f.parts.set_by_few if f.parts is not None and set_by_few(f) else composition(f).dominated


def cost_of_dominance(f: Facts, where: Mask) -> Severity:
    """What an ordinary row loses to the measured batches, or what a rare row costs that none of them holds."""
    return on.of_rest("few")(f, where) if set_by_few(f) else _cost_of_measured(f)


def _cost_of_measured(f: Facts) -> Severity:
    """What an ordinary row loses, where statistics of ordinary batches restore it and those of all do not."""
    c = composition(f)
    stale = c.ordinary_stale.value
    median = of_gap(c.ordinary) if not stale > SMALLER_PART * c.ordinary.value else NONE
    return max(median, of_gap(c.on_average))


def rows_of_weight_0(f: Facts) -> bool:
    """Some rows of the measured batches do not count."""
    e = f.evidence
    return measured(f) and e is not None and ("counted" in e.passes or "counted" in e.not_evaluated)


def padding_known(f: Facts) -> bool:
    """There are no such rows, or inference was measured with the statistics of the others."""
    return not rows_of_weight_0(f) or composition(f).uncounted.known


def padded(f: Facts) -> Mask:
    """Layers whose statistics rows of weight 0 move."""
    return composition(f).moved_by_uncounted


def cost_of_padding(f: Facts, _where: Mask) -> Severity:
    """What statistics of the rows that count take away, where those of all rows do not."""
    c = composition(f)
    return of_gap(c.uncounted) if c.uncounted_beside_stale.significant else NONE


# --- batches that are learned by heart -----------------------------------------------------------------


def by_heart(f: Facts) -> Mask:
    """Inference looks worse than batch statistics on the very batches of training, and on new ones it is not."""
    m, c = f.measured, composition(f)
    looks_worse = of_gap(c.apparent) > INFO and of_gap(f.gap) <= INFO
    # Rows of several kinds that are mixed do worse as well, and nobody has learned that by heart.
    return on.whole_run(m is not None and m.memorized and looks_worse and not m.rows_belong)


def cost_of_one_value(f: Facts, _where: Mask) -> Severity:
    """The gap, and what such layers take from training: nothing of their input passes them."""
    if not in_batches.one_value(f).any():
        return NONE
    learned = measured(f) and composition(f).left(trained(f)) <= LITTLE_LEARNED
    return max(of_gap(f.gap), WARNING if learned else ERROR)


def nothing_learned(f: Facts) -> bool:
    """The targets of other rows do as well as a row's own: training knows nothing of its data, now that it is over."""
    c = f.composition
    if c is None or not c.of_targets.known or c.of_targets.significant:
        return False
    return (f.over or f.checked) and c.left_of_nothing_known(trained(f)) > LITTLE_LEARNED


def in_vain(f: Facts, where: Mask) -> bool:
    """Training on constant statistics that are far off has learned nothing, and others give hardly more than luck.

    What they give to random weights behind them goes by the initial values.
    """
    if not (f.trains_on_constant and on.far(f, where) and nothing_learned(f)):
        return False
    return not composition(f).left_of_nothing_known("batch") <= LITTLE_LEARNED


def cost_of_constant(f: Facts, where: Mask) -> Severity:
    """What constant statistics cost; a warning where training on them was in vain, whatever the losses say."""
    return WARNING if in_vain(f, where) else on.constant_cost(f, where)


def cost_of_eval_mode(f: Facts, where: Mask) -> Severity:
    """The same, and a warning where training has diverged since: nothing bounds what the next layers get then."""
    return max(cost_of_constant(f, where), WARNING if diverged_on_constant(f) else NONE)


def diverged_on_constant(f: Facts) -> bool:
    """The loss was last finite before training ran on these statistics, and is not any more."""
    since = on.standing_since(lambda facts: facts.called)(f)
    return f.first_not_finite is not None and since is not None and f.first_step != since <= f.first_not_finite


# --- noise of small batches ----------------------------------------------------------------------------


def noise_known(f: Facts) -> bool:
    """Some fixed statistics were held against batch statistics, on enough batches for what none of them serves."""
    if f.composition is not None:
        return f.composition.noise.known
    fits_present = f.present_known or f.losses.windows_serve
    return f.losses.gap("recalibrated", "batch").known and f.noise.known and not f.noise.tentative and fits_present


def fixed_statistics_fail(f: Facts) -> Mask:
    """The best fixed statistics lose against batch statistics, and single batches do scatter."""
    c = f.composition
    if c is None:
        return in_batches.fixed_statistics_fail(f)
    scatters = bool(np.nanmax(c.batch_scatter, initial=0.0) >= on.SCATTER)
    return on.whole_run(of_gap(c.noise) > INFO and scatters)


def noise_is_less(f: Facts, where: Mask) -> bool:
    """A longer memory gives back more. Where many batches were measured, noise is what the best memory leaves."""
    return f.composition is None and on.jumps(f, f.layers.updating) >= in_batches.noise_cost(f, where)


def noise_cost(f: Facts, where: Mask) -> Severity:
    """What no fixed statistics take away: a part of the gap, and no surer than that is."""
    return in_batches.noise_cost(f, where) if f.composition is None else min(of_gap(f.composition.noise), of_gap(f.gap))


def noisy_in_training(f: Facts) -> Mask:
    """Layers whose batches are of few rows, where both fixed statistics and larger batches do better.

    The positions of an image are no independent rows: their mean scatters little, and the image sets it.
    """
    c = composition(f)
    few = np.asarray((c.batch_scatter >= FEW_ROWS) | (f.layers.updating & np.bool_(c.rows <= FEW_ROWS**-2)))
    # Batch statistics of few rows are a burden by design; a network that has learned well has borne it.
    if not c.left("inference") > WELL_LEARNED:
        return on.no_layers(f)
    return few & np.bool_(larger_batches_serve(f)) | one_of_two(f)


def larger_batches_serve(f: Facts) -> bool:
    """Batch statistics are far worse than fixed ones, and less so in larger batches."""
    c = composition(f)
    return c.of_training.at_least(WARNING_HARM) and c.pooled.value > 0.0


def one_of_two(f: Facts) -> Mask:
    """Layers that get two independent rows: of each channel they pass on which of the two is larger, and no more."""
    c = composition(f)
    return np.asarray((c.batch_scatter >= FEW_ROWS) & np.bool_(c.rows <= 2.0))


def cost_in_training(f: Facts, _where: Mask) -> Severity:
    """A warning where batch statistics double the loss, and larger batches surely do better."""
    c = composition(f)
    return WARNING if c.of_training.at_least(ERROR_HARM) and c.pooled.significant else INFO


# --- one mean for several calls ------------------------------------------------------------------------


def cost_of_sharing(f: Facts, where: Mask) -> Severity:
    """The gap, where one mean for all calls is worse than a call's own statistics."""
    c = f.composition
    if c is None or not c.of_calls.known:
        return on.whole_gap(f, where)
    return max(of_gap(f.gap), of_gap(c.of_calls)) if c.of_calls.significant else NONE


def sharing_costs(f: Facts, where: Mask) -> bool:
    """The calls lie a whole standard deviation apart, or it was measured to change the loss a little."""
    c = f.composition
    felt = c is not None and c.of_calls.known and cost_of_sharing(f, where) >= INFO
    return felt or robust.largest(f.layers.alternation) >= in_batches.NOTE_ALTERNATION


# --- validation ----------------------------------------------------------------------------------------


def constant_in_training(f: Facts) -> Mask:
    """Layers with channels that hardly vary in training, and whose validation batches lie far off."""
    return np.asarray((f.layers.collapsed > 0) & (in_batches.validation_distance(f) > LARGE_DISTANCE))
