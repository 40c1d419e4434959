"""`python -m app.cli`: the same as `graft`."""

from app.cli.main import run

run()
