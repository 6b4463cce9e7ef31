"""The four stories as short training runs: ``python -m demo`` trains one, prints the report and serves the tab."""

import os

# TensorFlow reads this once, when it is imported, so it has to be set before any module of the package.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
