"""The entry point that TensorBoard loads.

TensorBoard guards neither the import of this module nor ``fix_flags``: an exception in either ends it for all
plugins. So this module imports the standard library and ``base_plugin`` only, and ``fix_flags`` cannot raise.
"""

from __future__ import annotations

import argparse
import logging

from tensorboard.plugins import base_plugin

from tb_bnlens import metadata

# TensorBoard keeps 10 to 100 records of an unknown plugin's tag. The recorder spaces its records so that a million
# steps make 1,300 at most, and a channel snapshot is taken a few times a run.
RECORDS_KEPT = 5000
CHANNEL_RECORDS_KEPT = 200

logger = logging.getLogger("tensorboard.bn_lens")


class BNLensLoader(base_plugin.TBLoader):  # type: ignore[misc]
    """Loads the plugin, or leaves TensorBoard without it."""

    def fix_flags(self, flags: argparse.Namespace) -> None:
        """Ask for enough records; a number that the user gave for our plugins stays."""
        try:
            flags.samples_per_plugin.setdefault(metadata.PLUGIN_NAME, RECORDS_KEPT)
            flags.samples_per_plugin.setdefault(metadata.CHANNELS_PLUGIN_NAME, CHANNEL_RECORDS_KEPT)
        except Exception:  # another TensorBoard's flags: fewer points are better than no TensorBoard
            logger.debug("No sampling default could be set", exc_info=True)

    def load(self, context: base_plugin.TBContext) -> base_plugin.TBPlugin | None:
        """The plugin, or None with a logged reason where it cannot be imported."""
        try:
            from tb_bnlens.plugin.plugin import BNLensPlugin

            return BNLensPlugin(context)
        except Exception:
            logger.exception("The BN Lens tab is not available")
            return None
