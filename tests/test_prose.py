"""Check the prose of code and docs: how docstrings begin, and that each thing has the glossary's word."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.core.settings import Settings

ROOT = Path(__file__).parents[1]

# Folders and files whose prose has been revised. A folder stands for all that is below it.
REVISED = ("README.md", "docs", "app", "worker", "migrations")
PACKAGES = ("app", "worker", "bench", "clients", "migrations")

# Words that a first sentence does not begin with, because what follows is not a sentence.
HEADLESS = frozenset({"Of", "That", "Those", "As", "Until", "Who", "Whom", "Whose", "What"})

# A word that is not used, and the glossary's word for the thing.
OLD_WORDS = {
    r"\b(?<!threshold )sweep(s|ing)?\b(?!_)|\bswept\b": "housekeeping (cleaning up) or search (of hyper-parameters)",
    r"\btargets? of precision\b": "target precision",
    r"(?<!\")\bnovelty\b(?!\.?\")|\bout-of-distribution score": "OOD score",
    r"\bartifacts?\b": "artefact",
    r"(?-i:\b[hH]yperparameters?\b)": "hyper-parameter",
    r"\bconfidence scores?\b": "probability",
}
GLOSSARY = "docs/glossary.md"


def revised(path: str) -> bool:
    return any(path == one or path.startswith(f"{one}/") for one in REVISED)


def sources() -> list[str]:
    found = [path for top in PACKAGES for path in sorted((ROOT / top).rglob("*.py"))]
    return [path.relative_to(ROOT).as_posix() for path in found if ".venv" not in path.parts]


def pages() -> list[str]:
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [path.relative_to(ROOT).as_posix() for path in found]


def docstrings(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield the name and the docstring of the module and of every class and function that has one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text is not None:
                yield getattr(node, "name", "the module"), text


def faults_of_docstring(text: str) -> list[str]:
    """Return what is wrong with a docstring's first sentence."""
    first = text.split("\n\n")[0].strip()
    faults = []
    if (word := re.split(r"\W", first.lstrip("`'\"*("))[0]) in HEADLESS:
        faults.append(f"it begins with {word!r}; write a sentence with a subject and a verb")
    if not re.search(r"\.[)`'\"]*(\s|$)", first):
        faults.append("its first paragraph has no full stop")
    return faults


def old_words(text: str) -> list[str]:
    """Return a line for each word that the glossary has another word for."""
    return [
        f"{found[0]!r}; write {instead}"
        for pattern, instead in OLD_WORDS.items()
        for found in re.finditer(pattern, text, re.IGNORECASE)
    ]


@pytest.mark.parametrize("path", [path for path in sources() if revised(path)])
def test_docstrings_begin_with_a_sentence(path: str) -> None:
    tree = ast.parse((ROOT / path).read_text())
    faults = [f"{name}: {fault}" for name, text in docstrings(tree) for fault in faults_of_docstring(text)]
    assert faults == []


@pytest.mark.parametrize("path", [path for path in sources() if revised(path)])
def test_code_is_written_so_that_the_formatter_can_keep_it(path: str) -> None:
    assert "fmt: " + "skip" not in (ROOT / path).read_text()


@pytest.mark.parametrize("path", [path for path in [*sources(), *pages()] if revised(path)])
def test_each_thing_has_one_word(path: str) -> None:
    assert old_words((ROOT / path).read_text()) == []


def test_every_revised_path_exists() -> None:
    assert [path for path in REVISED if not (ROOT / path).exists()] == []


def test_the_glossary_explains_each_word_once_and_with_a_sentence() -> None:
    rows = [line.split(" | ") for line in (ROOT / GLOSSARY).read_text().splitlines() if line.startswith("| ")]
    words = [(row[0].removeprefix("| "), row[1]) for row in rows if row[0] not in ("| word", "| ---")]
    assert len(words) > 30
    assert len({word for word, _ in words}) == len(words)
    assert [word for word, meaning in words if not re.search(r"\.\)?$", meaning)] == []


def test_the_glossary_names_classes_that_exist() -> None:
    named = set(re.findall(r"`([A-Z][a-z]\w*)[`.]", (ROOT / GLOSSARY).read_text()))
    defined = {
        node.name
        for path in sources()
        for node in ast.walk(ast.parse((ROOT / path).read_text()))
        if isinstance(node, ast.ClassDef)
    }
    assert len(named) > 20
    assert named - defined == set()


@pytest.mark.parametrize("page", pages())
def test_pages_name_settings_that_exist(page: str) -> None:
    named = set(re.findall(r"GRAFT_([A-Z0-9_]*[A-Z0-9])\b", (ROOT / page).read_text()))
    assert {name.lower() for name in named} - set(Settings.model_fields) == set()


def test_links_between_pages_lead_somewhere() -> None:
    """A link names a file that exists and, behind #, a heading of that file."""
    dead = []
    for page in pages():
        for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", (ROOT / page).read_text()):
            name, _, anchor = target.partition("#")
            file = (ROOT / page).parent / name if name else ROOT / page
            if not file.exists() or (anchor and anchor not in headings(file)):
                dead.append(f"{page}: {target}")
    assert dead == []


def headings(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    found = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("Return the model.", 0),
        ("`path` itself is yielded.\n\nMore", 0),
        ("What the API says.", 1),
        ("Of the model", 2),
        ("That one.", 1),
        ("Jobs that predict", 1),
    ],
)
def test_the_check_finds_what_is_not_a_sentence(text: str, faults: int) -> None:
    assert len(faults_of_docstring(text)) == faults


@pytest.mark.parametrize("text", ["a sweep frees it", "Swept", "the target of precision", "a novelty", "artifact"])
def test_the_check_finds_old_words(text: str) -> None:
    assert len(old_words(text)) == 1


def test_the_check_knows_the_field_threshold_sweep() -> None:
    assert old_words("`threshold_sweep` holds a threshold sweep") == []
