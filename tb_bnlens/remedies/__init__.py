"""Remedies: measure the moving statistics afresh, with undo, and set the momentum of every BatchNorm layer."""
