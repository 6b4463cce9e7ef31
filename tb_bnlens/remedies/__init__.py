"""Remedies: measure the moving statistics afresh, with undo, and set the momentum of every BatchNorm layer."""

from tb_bnlens.remedies.momentum import set_momentum
from tb_bnlens.remedies.recalibration import Recalibration, recalibrate

__all__ = ["Recalibration", "recalibrate", "set_momentum"]
