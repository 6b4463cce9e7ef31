"""A moving statistic that is NaN, infinite or a negative variance."""

from __future__ import annotations

import math

from tb_bnlens.analysis.facts import Facts
from tb_bnlens.diagnosis.decide import Decision
from tb_bnlens.diagnosis.words import code
from tb_bnlens.diagnosis.words.phrases import count, names, number
from tb_bnlens.diagnosis.words.words import Evidence, Said, Words

FIX = """\
# Keep values that are not finite, or far too large, out of the data, in a tf.data pipeline for instance with:
#   data = data.map(lambda x, y: (tf.clip_by_value(tf.where(tf.math.is_finite(x), x, 0.0), -1e4, 1e4), y))
"""
TOO_FAST = """\
# A loss that grows until it is not finite comes from too large steps far more often than from the data. Lower the
# learning rate, scale regression targets to a standard deviation of about 1, and clip the gradients: {clip}
"""
CLIP = "\n#   optimizer = keras.optimizers.Adam(1e-3, clipnorm=1.0)"
CLIP_IN_TORCH = "between\n# backward and step:\n#   torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)"
CLIP_IN_FLAX = "\n#   tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))"
OTHERWISE = "# If that does not help, look at the data:\n"
FIX_IN_TORCH = """\
# Keep values that are not finite, or far too large, out of the data, for instance in the Dataset:
#   x = torch.nan_to_num(x, nan=0.0).clamp(-1e4, 1e4)
# Under autocast and in half precision a value above 65,504 is infinite. GradScaler then skips the step, and not the
# statistics. Run the layer before BatchNorm without autocast, and keep BatchNorm itself in float32:
#   for layer in model.modules():
#       if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
#           layer.float()
"""
FIX_IN_FLAX = """\
# Keep values that are not finite, or far too large, out of the data:
#   x = np.nan_to_num(x, nan=0.0).clip(-1e4, 1e4)
"""


def passed(f: Facts, _d: Decision) -> str:
    """How many channels are finite."""
    earlier = " They were not at an earlier step." if f.nonfinite_since is not None else ""
    return f"Every channel of {count(len(f.layers.names), 'BatchNorm layer')} is finite.{earlier}"


def failed(f: Facts, d: Decision) -> Said:
    """Where, since when, and how to replace them."""
    channels, batch, since = int(f.layers.nonfinite.sum()), f.now("batch"), f.nonfinite_since
    where = names([f.layers.names[i] for i in d.layers])
    summary = (
        f"{count(channels, 'channel')} in {count(len(d.layers))} ({where}) {'has' if channels == 1 else 'have'} a "
        f"moving statistic that is not finite{'' if since is None else f', since step {since:,}'}."
    )
    if f.losses.diverged:
        summary += (
            " The loss in training mode is not finite either: training has diverged, and the statistics show it. New "
            "statistics do not help then; go back to weights of an earlier step."
        )
        if f.grew and f.last_finite is not None:
            summary += f" The loss grew before that, to {number(f.last_finite[1])} at step {f.last_finite[0]:,}."
    elif math.isfinite(batch):
        summary += f" Training does not read it: with batch statistics the loss is {number(batch)}."
    evidence = {
        "channels": Evidence("channels with a statistic that is not finite", channels, 0, against="expected"),
    }
    if since is not None:
        evidence["first_step"] = Evidence("first seen at step", since)
    left = f.undone("put_right:nonfinite").known and not math.isinf(f.typical("put_right:nonfinite"))
    if left:
        repaired = f.typical("put_right:nonfinite")
        evidence["repaired"] = Evidence(
            "inference loss with these channels replaced", repaired, f.rival_loss, against="batch statistics"
        )
    return Said(
        summary,
        evidence=evidence,
        # The data of the training hold the batch that was to blame.
        rescue=_reset(f, d) + "\n" + code.RECALIBRATE.replace("batches=200", "batches=200, skip_non_finite=True"),
        rescued="recalibrated",
        fix=_fix(f),
        next="The loss stays finite, and the statistics with it."
        if f.losses.diverged
        else "The statistics stay finite. If they do not, look at the data and at the code that writes to the layers"
        f"{'' if since is None else f' by step {since:,}'}.",
    )


def _fix(f: Facts) -> str:
    """What keeps values finite: smaller steps where training itself has diverged, then the data."""
    data = code.told(f, keras=FIX, torch=FIX_IN_TORCH, flax=FIX_IN_FLAX)
    if not f.losses.diverged:
        return data
    clip = code.told(f, keras=CLIP, torch=CLIP_IN_TORCH, flax=CLIP_IN_FLAX)
    return TOO_FAST.format(clip=clip).replace(": \n", ":\n") + OTHERWISE + data


_NEW = {"mean": "zeros", "var": "ones"}
"""Statistics of a new layer in flax, and what they are made of."""


def _reset(f: Facts, d: Decision) -> str:
    access = [f.manifest.layers[i].access for i in d.layers]
    if f.in_torch:
        return code.at_layers(f, access, "layer.reset_running_stats()")
    if f.in_flax:
        reset = (f"layer.{name}[...] = jnp.{made}_like(layer.{name}[...])" for name, made in _NEW.items())
        return "import jax.numpy as jnp\n\n" + code.at_layers(f, access, "\n    ".join(reset))
    return "import numpy as np\n\n" + code.at_layers(
        f,
        access,
        "layer.moving_mean.assign(np.zeros(layer.moving_mean.shape))\n"
        "    layer.moving_variance.assign(np.ones(layer.moving_variance.shape))",
    )


WORDS = Words(
    name="statistics that are not finite",
    title="All moving statistics are finite",
    failure_title="Moving statistics are not finite",
    description="One batch with NaN or infinity poisons a moving average permanently, because neither decays. Waiting "
    "and a lower momentum do not help. Training does not read the averages, so it continues normally.",
    absent="There are no moving statistics.",
    unknown=lambda _: "The layers are not recorded yet.",
    passed=passed,
    failed=failed,
)
