"""Many processes write job rows to one SQLite file; `python -m bench.sqlite_writers` is the long run."""

from bench.sqlite_writers import contend


def test_no_writer_finds_the_file_locked(sqlite_url: str) -> None:
    figures = contend(sqlite_url, processes=8, seconds=3.0)
    assert figures["failures"] == []
    assert figures["jobs"] > 8
