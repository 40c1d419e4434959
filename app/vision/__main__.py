"""`python -m app.vision`: fine-tune and classify with no server and no database."""

from __future__ import annotations

import sys

from app.vision.command import main

if __name__ == "__main__":
    sys.exit(main())
