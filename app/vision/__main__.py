"""`python -m app.vision`: fine-tune and classify with no server and no database."""

from __future__ import annotations

import os
import sys

from app.vision.command.train import main

if __name__ == "__main__":
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # the same sums every time
    sys.exit(main())
