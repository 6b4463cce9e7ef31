"""The moving statistics were gathered with dropout or another training-only layer on; inference has it off."""

from __future__ import annotations

from tb_bnlens.analysis import robust
from tb_bnlens.analysis.facts import Facts
from tb_bnlens.diagnosis.decide import Decision
from tb_bnlens.diagnosis.words import code
from tb_bnlens.diagnosis.words.phrases import loss, some_of, verb
from tb_bnlens.diagnosis.words.words import Evidence, Said, Words

FIX = """\
# Put dropout (or noise) after the last BatchNormalization, for instance right before the output layer:
#   x = keras.layers.BatchNormalization()(keras.layers.Dense(256)(x))
#   x = keras.layers.ReLU()(x)
#   x = keras.layers.Dropout(0.5)(x)
#   outputs = keras.layers.Dense(10)(x)
# Where it has to stay, take statistics without dropout at the end of every training:
"""
FIX_IN_TORCH = """\
# Put dropout (or noise) after the last BatchNorm, for instance right before the output layer:
#   nn.Sequential(nn.Linear(256, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Dropout(0.5), nn.Linear(256, 10))
# Where it has to stay, take statistics without dropout at the end of every training (swa_utils.update_bn takes them
# with dropout on):
"""
FIX_IN_FLAX = """\
# Put dropout (or noise) after the last BatchNorm, for instance right before the output layer:
#   x = nnx.relu(self.norm(self.hidden(x)))
#   return self.out(self.dropout(x))
# Where it has to stay, take statistics without dropout at the end of every training:
"""


def passed(f: Facts, _d: Decision) -> str:
    """What the statistics would give without training-only layers, and with them."""
    with_them, without = f.typical("with_dropout"), f.typical("recalibrated")
    return (
        f"Inference with statistics gathered with training-only layers on has a loss of {loss(f, with_them)}, with "
        f"those off {loss(f, without)}."
    )


def failed(f: Facts, d: Decision) -> Said:
    """Inference on both kinds of statistics at these weights."""
    n, rescued = len(d.layers), f.typical("recalibrated")
    ratio = robust.median(f.row("mode_variance_p50")[list(d.layers)])
    return Said(
        f"{some_of(n, len(f.layers.names))} {verb(n, 'hold')} statistics that were gathered under dropout or another "
        "training-only layer before BatchNorm. At inference that layer is off, and the activations have another "
        f"variance (variance shift). With statistics gathered with it off, inference loss is {loss(f, rescued)} "
        f"instead of {loss(f, f.typical('inference'))}.",
        evidence={
            "with": Evidence(
                "inference loss with statistics gathered with training-only layers on", f.typical("with_dropout")
            ),
            "without": Evidence("inference loss with statistics gathered with them off", rescued),
            "ratio": Evidence("variance with them on, over that with them off (median layer)", ratio),
        },
        rescue=code.RECALIBRATE,
        rescued="recalibrated",
        fix=code.told(f, keras=FIX, torch=FIX_IN_TORCH, flax=FIX_IN_FLAX)
        + "# import tb_bnlens; tb_bnlens.recalibrate(model, data, batches=200)\n",
        next="The moving statistics agree with batch statistics taken without dropout, and inference loss agrees with "
        "the loss with batch statistics. Neither a schedule nor another momentum removes the shift.",
    )


WORDS = Words(
    name="variance shift",
    title="Training-only layers leave the statistics as inference needs them",
    failure_title="Statistics were gathered under dropout (variance shift)",
    description="Dropout and noise in front of BatchNorm change the variance of what it sees. The moving variance is "
    "gathered with them on, inference runs with them off, and every layer adds its part (Li et al. 2019). It shows in "
    "statistics taken at the same weights with these layers on and off.",
    absent="The model has no BatchNorm layers.",
    unknown=lambda _: "This takes a measurement on many batches at the end of training.",
    passed=passed,
    failed=failed,
)
