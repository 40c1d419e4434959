"""A pytest plugin that prints the forty longest tests: seconds on the clock, and CPU seconds of the test and of the
processes it started.

The CPU seconds say what a test costs on a machine that is shared; the clock says what it waits for. The processor time
of a process that nobody has waited for counts while it lives.
"""

import os
from collections import defaultdict
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pytest

SHOWN = 40
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Cost:
    """What one test took, with its fixtures: seconds on the clock and of a processor."""

    wall: float = 0.0
    cpu: float = 0.0


class Laps:
    """Tells the processor seconds of this process and its children since it was last asked."""

    def __init__(self) -> None:
        self._most = 0.0  # what pytest took to start counts for the first test

    def lap(self) -> float:
        # Linux may leave out a child from its list, and then the sum falls and rises again.
        before, self._most = self._most, max(self._most, cpu_seconds(os.getpid()))
        return self._most - before


_laps = Laps()


def cpu_seconds(pid: int) -> float:
    """Return the processor seconds of a process, of its children that were waited for, and of those that live."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        children = [
            int(child)
            for thread in Path(f"/proc/{pid}/task").iterdir()
            for child in (thread / "children").read_text().split()
        ]
    except OSError:  # it has ended since, or this is no Linux
        return 0.0
    return sum(map(int, fields[11:15])) / _TICKS + sum(cpu_seconds(child) for child in children)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    report.cpu = _laps.lap()  # type: ignore[attr-defined] # a plain number, which pytest-xdist carries to the process that prints
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    costs: dict[str, Cost] = defaultdict(Cost)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                costs[report.nodeid].wall += report.duration
                costs[report.nodeid].cpu += getattr(report, "cpu", 0.0)
    if len(costs) < SHOWN:
        return
    cpu, wall = sum(cost.cpu for cost in costs.values()), sum(cost.wall for cost in costs.values())
    terminalreporter.section(f"the {SHOWN} longest of {len(costs)} tests, which took {wall:.0f} s, {cpu:.0f} s of CPU")
    terminalreporter.line("    wall      CPU  test, with its fixtures")
    for name, cost in sorted(costs.items(), key=lambda item: -item[1].wall)[:SHOWN]:
        terminalreporter.line(f"{cost.wall:7.1f}s {cost.cpu:7.1f}s  {name}")
