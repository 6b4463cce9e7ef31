"""Record the trainings: ``python -m tests.calibration FOLDER [SET ...]``; what is there already is kept."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from tests.calibration.recording import SETS, one_thread, record_set

one_thread()
for name in sys.argv[2:] or SETS:
    record_set(name, Path(sys.argv[1]))
