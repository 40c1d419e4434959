"""Two trees are measured in turn, by their own scripts; the ratio is of speeds, whatever the figure is."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.against import BENCHMARKS, against, main, run
from bench.checkouts import Checkout

SCRIPT = """
import json, sys
from pathlib import Path
with (Path(__file__).parents[2] / "order").open("a") as file:
    file.write(Path.cwd().name + " ")
print("noise")
print(json.dumps({{"bench": "{name}"}} | {figures!r}))
sys.exit({code})
"""

Make = Callable[..., Checkout]


@pytest.fixture
def tree(tmp_path: Path) -> Make:
    """A checkout whose benchmark prints these figures."""

    def make(side: str, name: str, figures: dict[str, object], code: int = 0) -> Checkout:
        folder = tmp_path / side / "bench"
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
        (folder / f"{name}.py").write_text(SCRIPT.format(name=name, figures=figures, code=code))
        return Checkout(tmp_path / side, Path(sys.executable))

    return make


def test_a_rate_and_a_time_both_give_the_ratio_of_speeds(tree: Make, tmp_path: Path) -> None:
    before = tree("before", "ingestion", {"ingestion_images_per_s": {"median": 100.0}, "ratio": 2.0})
    after = tree("after", "ingestion", {"ingestion_images_per_s": {"median": 110.0}, "ratio": 1.0})
    found = against(before, after, "ingestion", ["--kind", "small"], 2)
    assert found["ratio"] == 1.1
    assert (found["before"]["median"], found["after"]["median"]) == (100, 110)
    assert found["own_ratio"]["ratio"] == 0.5
    assert (tmp_path / "order").read_text() == "before after before after "
    assert found["options"] == ["--rounds", "1", "--kind", "small"]

    slow = tree("slow", "dispatch", {"p50_ms": 50.0})
    fast = tree("fast", "dispatch", {"p50_ms": 40.0}, code=1)
    assert against(slow, fast, "dispatch", [], 1)["ratio"] == 1.25


def test_it_says_whether_all_runs_answered_alike(tree: Make) -> None:
    line = {"images_per_second": {"http": {"median": 10.0}}, "engine": "torch-bf16"}
    before, other = tree("before", "serve_http", line), tree("other", "serve_http", line | {"engine": "openvino-int8"})
    assert against(before, before, "serve_http", [], 1)["same"] == {"engine": True}
    assert against(before, other, "serve_http", [], 1)["same"] == {"engine": False}


def test_a_benchmark_that_says_nothing_ends_the_comparison(tree: Make) -> None:
    broken = tree("broken", "dispatch", {"p95_ms": 1.0})
    with pytest.raises(SystemExit, match="dispatch: its line has no p50_ms"):
        against(broken, broken, "dispatch", [], 1)
    with pytest.raises(SystemExit, match=r"bench.ingestion in .* printed 0 lines of figures"):
        run(broken, "ingestion", [])


def test_the_whole_command_ends_with_one_where_this_tree_is_slower(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tree: Make
) -> None:
    """Ingestion of a few images here, against a tree that claims to do a million a second."""
    tree("before", "ingestion", {"ingestion_images_per_s": {"median": 1e6}})
    (tmp_path / "before" / "app").mkdir()
    (tmp_path / "before" / ".venv").symlink_to(sys.prefix)
    code = main(["ingestion", "--before", str(tmp_path / "before"), "--rounds", "1", "--", "--images", "20"])
    line = json.loads(capsys.readouterr().out)
    assert code == 1
    assert (line["bench"], line["benchmark"], line["met"]) == ("against", "ingestion", False)
    assert 0 <= line["ratio"] < 0.97


@pytest.mark.parametrize("name", BENCHMARKS)
def test_each_benchmark_takes_the_options_that_it_is_given(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Up to `--help`, which is looked at after what stands before it has been understood."""
    data = ["--data", "photos.zip"] if BENCHMARKS[name].data else []
    monkeypatch.setattr(sys, "argv", [name, *BENCHMARKS[name].options, *data, "--help"])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"bench.{name}").main()
    assert ended.value.code == 0, capsys.readouterr().err
