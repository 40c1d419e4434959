"""Errors carry their status, a stable code, and sentences; logs show neither secrets nor local variables."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from app.core import errors
from app.core.errors import Conflict, FieldError, GraftError, Invalid, Unavailable

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, GraftError)]


def test_each_kind_has_its_own_status_and_code() -> None:
    assert len(KINDS) == 15
    assert len({kind.status for kind in KINDS}) == len({kind.code for kind in KINDS}) == len(KINDS)
    assert all(400 <= kind.status <= 599 for kind in KINDS)


def test_an_error_is_its_kind_unless_it_says_more() -> None:
    plain = Conflict("It is so.")
    assert (plain.code, plain.errors, plain.retry_after, str(plain)) == ("conflict", (), None, "It is so.")
    precise = Unavailable("Away.", code="database_unavailable", retry_after=2)
    assert (precise.code, precise.status, precise.retry_after) == ("database_unavailable", 503, 2)
    assert Unavailable.code == "unavailable"


def test_fields_are_named() -> None:
    error = Invalid(
        "Two are wrong.", errors=[FieldError("head.dropout", "Too much.", "range"), FieldError("seed", "No.")]
    )
    assert [one.as_dict() for one in error.errors] == [
        {"field": "head.dropout", "code": "range", "message": "Too much."},
        {"field": "seed", "code": "invalid", "message": "No."},
    ]


PROGRAM = """
import logging
from app.core.logging import configure_logging, log
from app.core.settings import Settings

settings = Settings(s3_secret_key="hush-setting", log_format=FORMAT, log_level=LEVEL, _env_file=None)
configure_logging(settings)

def fails(argument, settings):
    secret = "hush-" + "local"
    raise RuntimeError("it broke")

for write in (log.exception, logging.getLogger("a.library").exception):
    try:
        fails("hush-" + "argument", settings)
    except RuntimeError:
        write("job_crashed")
log.info("job_started", job="one", settings=settings)
logging.getLogger("a.library").warning("look %s", "here")
logging.getLogger("httpx2").info("chatter")
"""


def logged(log_format: str, level: str = "info") -> str:
    program = PROGRAM.replace("FORMAT", repr(log_format)).replace("LEVEL", repr(level))
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return done.stderr


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_traceback_shows_no_variables_and_no_secrets(log_format: str) -> None:
    output = logged(log_format)
    assert output.count("RuntimeError: it broke") == 2
    assert "in fails" in output
    assert "hush" not in output


def test_json_logs_are_one_object_a_line() -> None:
    events = [json.loads(line) for line in logged("json").splitlines()]
    assert [one["event"] for one in events] == ["job_crashed", "job_crashed", "job_started", "look here"]
    assert [one["level"] for one in events] == ["error", "error", "info", "warning"]
    assert events[2]["job"] == "one"
    assert all(one["timestamp"].endswith("Z") for one in events)


def test_the_level_keeps_the_lesser_out() -> None:
    events = [json.loads(line) for line in logged("json", "warning").splitlines()]
    assert [one["event"] for one in events] == ["job_crashed", "job_crashed", "look here"]
