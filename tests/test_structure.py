"""The tree's structure: no circle of files, no kind or task named outside its place, no crowded folder."""

import ast
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.support.source import MODULES, ROOT, imports, tree

MOST_FILES = 20  # a folder
# The rooms of app/vision, the lowest first: a room imports from those before it.
ROOMS = (
    *("errors", "scores", "backbones", "settings", "images", "runtime", "networks", "data", "tasks", "engines"),
    *("artefacts", "training", "command", "__main__"),
)
TASKS = {"classify"}
KINDS = {"train", "ingest", "predict"}


def imported_modules(module: str) -> set[str]:
    """Return those of our modules that this one imports; a package's own name counts for its `__init__`."""
    found = set()
    for name in imports(module):
        found.add(name if name in MODULES else name.rpartition(".")[0])
    return (found & set(MODULES)) - {module}


def circles() -> Iterator[set[str]]:
    """Groups of modules that import one another, by Tarjan's algorithm (1972)."""
    arrows = {module: imported_modules(module) for module in MODULES}
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []

    def visit(module: str) -> Iterator[set[str]]:
        number[module] = lowest[module] = len(number)
        path.append(module)
        for other in arrows[module]:
            if other not in number:
                yield from visit(other)
                lowest[module] = min(lowest[module], lowest[other])
            elif other in path:
                lowest[module] = min(lowest[module], number[other])
        if lowest[module] == number[module]:
            group = set(path[path.index(module) :])
            del path[path.index(module) :]
            if len(group) > 1:
                yield group

    for module in MODULES:
        if module not in number:
            yield from visit(module)


def test_no_files_import_one_another_in_a_circle() -> None:
    assert not [sorted(group) for group in circles()]


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith("app.vision.")])
def test_the_rooms_of_vision_point_down(module: str) -> None:
    room = ROOMS.index(module.split(".")[2])
    above = {
        other
        for other in imported_modules(module)
        if other.startswith("app.vision.") and ROOMS.index(other.split(".")[2]) > room
    }
    assert not above, f"{module} imports {above}, which lie above it"


def test_no_folder_is_crowded() -> None:
    folders = Counter(path.parent.relative_to(ROOT) for path in MODULES.values() if path.name != "__init__.py")
    assert not {str(folder): files for folder, files in folders.items() if files > MOST_FILES}


def branches_on(node: ast.AST, names: set[str], subject: str) -> bool:
    """Whether the node compares something called `subject` with one of the names, or matches it against one."""
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        named = any(ast.unparse(side).rpartition(".")[2] in (subject, f"['{subject}']") for side in sides)
        constants = {one.value for side in sides for one in ast.walk(side) if isinstance(one, ast.Constant)}
        return named and bool(constants & names)
    if isinstance(node, ast.Match):
        constants = {
            one.value for case in node.cases for one in ast.walk(case.pattern) if isinstance(one, ast.Constant)
        }
        return ast.unparse(node.subject).rpartition(".")[2] == subject and bool(constants & names)
    return False


@pytest.mark.parametrize("module", MODULES)
def test_no_branch_on_a_kind_of_job(module: str) -> None:
    """What differs from kind to kind is a field of its `JobType`."""
    lines = [node.lineno for node in ast.walk(tree(module)) if branches_on(node, KINDS, "kind")]
    assert not lines, f"{module} branches on a kind of job in lines {lines}"
    assert "JobKind" not in MODULES[module].read_text()


@pytest.mark.parametrize("module", [module for module in MODULES if not module.startswith("app.vision.tasks")])
def test_a_task_is_named_in_its_folder_alone(module: str) -> None:
    strays = {name for name in imports(module) if any(name.startswith(f"app.vision.tasks.{task}") for task in TASKS)}
    assert not strays, f"{module} imports {strays}; what it needs is for the Task protocol to say"
    lines = [node.lineno for node in ast.walk(tree(module)) if branches_on(node, TASKS, "task")]
    assert not lines, f"{module} branches on a task in lines {lines}"
