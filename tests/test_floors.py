"""The imports of every module point down, as the table of floors in the design says."""

import ast
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.source import MODULES, ROOT, imports, tree

FLOORS = {
    "app": 0,  # the version, and nothing else
    "app.core": 0,
    "app.storage": 0,
    "app.vision": 0,
    "app.auth": 1,
    "app.datasets": 2,
    "app.jobs": 3,
    "app.registry": 4,
    "app.ingestions": 5,
    "app.trainings": 5,
    "app.predictions": 5,
    "app.work": 6,
    "app.operations": 7,
    "app.api": 7,
    "app.cli": 7,
    "worker": 8,
    "migrations": 8,
}
# Arrows within a floor. Storage raises core's errors and reads its settings; the command starts the API.
WITHIN_A_FLOOR = {
    ("app.storage", "app.core"),
    ("app.cli", "app.api"),
    ("app.cli", "app.operations"),
    ("app.operations", "app"),
    ("app.api", "app"),
}

# Who may import a library: packages, or single modules.
LIBRARIES = {
    "fastapi": {"app.api"},
    "starlette": {"app.api"},
    "uvicorn": {"app.api", "app.cli"},
    "celery": {"worker"},
    "kombu": {"app.jobs.doorbell", "worker"},
    "torch": {"app.vision", "app.predictions", "worker.kinds.train"},
    "torchvision": {"app.vision", "app.predictions", "worker.kinds.train"},
    "onnxruntime": {"app.vision.engines.onnx_engines"},
    "openvino": {"app.vision.engines.onnx_engines"},
}
VISION_IMPORTS = {
    *("app", "numpy", "PIL", "matplotlib", "torch", "torchvision", "safetensors", "onnxruntime", "openvino"),
    *sys.stdlib_module_names,
}

# The settings are the only reader of the environment. These hand one on to a process that they start.
ENVIRONMENT = {
    "app.cli.demo.command",  # a service with none of this machine's GRAFT_ variables
    "app.cli.options",  # what the command line gives, for this process and its children
    "app.vision.__main__",  # cuBLAS is told that way to give the same sums every time
    "app.vision.runtime.launch",  # torchrun tells a process its rank that way
    "app.cli.up",  # the worker beside the API
    "worker.processes.process",  # a job's child, without what is none of its business
    "worker.machines.ranks",  # gloo and NCCL are told the network between machines that way
}


def package(module: str) -> str:
    """The row of the table that a module belongs to."""
    two = ".".join(module.split(".")[:2])
    return two if two in FLOORS else module.split(".")[0]


def our_arrows(module: str) -> Iterator[tuple[str, str]]:
    for name in imports(module):
        if name.split(".")[0] in ("app", "worker", "migrations", "tests", "bench"):
            yield package(module), package(name)


def test_the_table_knows_every_package() -> None:
    assert {package(module) for module in MODULES} == set(FLOORS)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    for here, there in our_arrows(module):
        assert there in FLOORS, f"{module} imports {there}"
        allowed = here == there or FLOORS[there] < FLOORS[here] or (here, there) in WITHIN_A_FLOOR
        assert allowed, f"{module} is on floor {FLOORS[here]} and imports {there} of floor {FLOORS[there]}"


def test_the_table_allows_nothing_within_a_floor_that_no_module_needs() -> None:
    arrows = {arrow for module in MODULES for arrow in our_arrows(module)}
    assert arrows >= WITHIN_A_FLOOR


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_stays_in_its_place(library: str) -> None:
    users = {module for module in MODULES if any(name.split(".")[0] == library for name in imports(module))}
    allowed = LIBRARIES[library]
    strays = {module for module in users if package(module) not in allowed and module not in allowed}
    assert not strays, f"{library} is imported by {strays}; only {allowed} may"


@pytest.mark.parametrize("module", [module for module in MODULES if package(module) == "app.vision"])
def test_vision_is_pure(module: str) -> None:
    strays = {name for name in imports(module) if name.split(".")[0] not in VISION_IMPORTS}
    assert not strays, f"{module} imports {strays}"


def test_only_the_settings_read_the_environment() -> None:
    def touches_it(node: ast.AST) -> bool:
        return isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv", "putenv")

    users = {module for module in MODULES if any(map(touches_it, ast.walk(tree(module))))}
    users |= {module for module in MODULES if {"os.environ", "os.getenv"} & set(imports(module))}
    assert users == ENVIRONMENT
    makers = {module for module in MODULES if {"pydantic_settings.BaseSettings"} & set(imports(module))}
    assert makers == {"app.core.settings"}


@pytest.mark.parametrize("module", ["app.cli.main", "app.api.app", "app.jobs.service", "worker.supervision.worker"])
def test_importing_it_does_not_import_torch(module: str) -> None:
    """Torch takes seconds and hundreds of megabytes; only a child that trains and an API that predicts need it."""
    program = (
        f"import sys, {module}; print(*({{'torch', 'torchvision'}} & set(sys.modules)), {module!r} in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"]


@pytest.mark.parametrize("module", ["worker.kinds.train", "worker.kinds.ingest"])
def test_a_job_is_computed_without_a_database(module: str) -> None:
    program = f"import sys, {module}; print('sqlalchemy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


@pytest.mark.parametrize("module", MODULES)
def test_a_module_says_what_it_does_and_stays_short(module: str) -> None:
    lines = MODULES[module].read_text().count("\n")
    assert lines <= 300, f"{module} has {lines} lines: it does more than one thing"
    assert ast.get_docstring(tree(module)), f"{module} does not say what it does"
