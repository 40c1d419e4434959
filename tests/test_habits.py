"""Tests read the tests: none imports another test, patches what is private, or writes code into a process it starts."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
FILES = sorted(TESTS.rglob("*.py"))


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def patched(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The line and the fault of each `monkeypatch.setattr` of what is not the test's to know."""
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "setattr"):
            continue
        target, *rest = node.args
        if isinstance(target, ast.Constant):
            yield node.lineno, f"patches {target.value!r}, a name in a string"
        if rest and isinstance(rest[0], ast.Constant) and str(rest[0].value).startswith("_"):
            yield node.lineno, f"patches the private {rest[0].value}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(TESTS)))
def test_what_tests_share_lies_in_support(path: Path) -> None:
    """A module that others import from is no test: it would be collected twice, and its fixtures with it."""
    for name in imported(ast.parse(path.read_text())):
        parts = name.split(".")
        shared = not any(part.startswith("test_") or part == "conftest" for part in parts[1:])
        assert parts[0] != "tests" or shared, f"it imports {name}; move what is shared to tests/support"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(TESTS)))
def test_nothing_private_is_patched(path: Path) -> None:
    """What a test must change is an argument or a setting: a private name is free to change."""
    faults = [f"line {line} {fault}" for line, fault in patched(ast.parse(path.read_text()))]
    assert faults == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(TESTS)))
def test_no_code_is_written_into_another_process(path: Path) -> None:
    """Python runs a module of that name before a program's own code; it would patch what the program is made of."""
    hook = "site" + "customize"
    assert hook not in path.read_text(), "let the process run code of tests/support by an argument or a setting"


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("monkeypatch.setattr('app.jobs.doorbell.MOMENT', 1)", "a name in a string"),
        ("monkeypatch.setattr(doorbell, '_MOMENT', 1)", "the private _MOMENT"),
    ],
)
def test_these_rules_can_be_broken(code: str, fault: str) -> None:
    assert [fault in found for _, found in patched(ast.parse(code))] == [True]
