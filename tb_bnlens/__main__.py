"""``python -m tb_bnlens``."""

import sys

from tb_bnlens.cli import main

if __name__ == "__main__":
    sys.exit(main())
