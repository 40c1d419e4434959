"""Check that this tree opens, serves and resumes what an earlier commit has stored: `python -m bench.old_home`.

Runs tests/e2e/test_old_home.py against a checkout of that commit, with SQLite and with PostgreSQL. `--added task` lets
a model file of this tree say that much more than the earlier commit's. What follows `--` goes to pytest.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence

from bench.checkouts import HERE, add_options, chosen, this_checkout

TESTS = "tests/e2e/test_old_home.py"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tests with that checkout; return pytest's exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    cut = given.index("--") if "--" in given else len(given)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--added", action="append", default=[], metavar="KEY", help="a key that the new file may add")
    options = parser.parse_args(given[:cut])
    here, before = this_checkout(), chosen(options, "run")
    variables = here.environment(GRAFT_TEST_BEFORE=str(before.root), GRAFT_TEST_ADDED=",".join(options.added))
    command = here.module("pytest", "-q", "-x", TESTS, *given[cut + 1 :])
    return subprocess.run(command, cwd=HERE, env=variables).returncode


if __name__ == "__main__":
    sys.exit(main())
