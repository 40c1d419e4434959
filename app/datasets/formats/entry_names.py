"""This module checks a name in an archive, whichever format the archive has."""

import re
import unicodedata

from app.core.errors import FieldError, Invalid

_MAX_LENGTH = 1024
_DRIVE = re.compile(r"[A-Za-z]:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # all of Unicode's category Cc
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_RENAME = "Pack the archive again from inside the folder that holds the images, with plain relative names."


def refuse(code: str, name: str, problem: str, remedy: str) -> Invalid:
    """Return the error that refuses a whole archive because of one entry. `problem` and `remedy` are sentences."""
    shown = printable(name)
    return Invalid(
        f"{shown}: {problem} {remedy}", code=code, errors=[FieldError(shown, f"{problem} {remedy}", code=code)]
    )


def printable(name: str) -> str:
    """Return `name` with everything escaped that could hurt a terminal, a log or a UTF-8 encoder, at most 200
    characters."""
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name[:200])
    return shown + "…" if len(name) > 200 else shown


class EntryNames:
    """This class accepts the names of one archive in turn; remembers them to find duplicates."""

    def __init__(self) -> None:
        self._seen: dict[str, str] = {}

    def accept(self, raw: str, *, folder: bool = False) -> str:
        """Return the clean form of `raw`: NFC, relative, without `.` or empty parts.

        Raises `Invalid`: `unsafe_name` for a name that could point outside the archive or deceive whoever reads it,
        `duplicate_name` for a file whose name another one has, also where only case or Unicode form differ.
        """
        if problem := _unsafe(raw):
            raise refuse("unsafe_name", raw, problem, _RENAME)
        parts = unicodedata.normalize("NFC", raw).split("/")
        name = "/".join(part for part in parts if part not in ("", "."))
        if folder:
            return name
        if not name:
            raise refuse("unsafe_name", raw, "The name of this file is empty.", _RENAME)
        folded = unicodedata.normalize("NFC", name.casefold())
        if (other := self._seen.setdefault(folded, name)) is not name:
            raise refuse(
                "duplicate_name",
                name,
                f"The archive holds this name twice (the other is {printable(other)}; case does not tell files apart).",
                "Rename or leave out one of them.",
            )
        return name


def _unsafe(raw: str) -> str | None:
    """Return what is wrong with the name, as a sentence."""
    if len(raw) > _MAX_LENGTH:
        return f"The name is {len(raw)} characters long, more than {_MAX_LENGTH}."
    if "\\" in raw:
        return "The name contains a backslash."
    if _CONTROL.search(raw):
        return "The name contains a control character."
    if _SURROGATE.search(raw):
        return "The name is not valid UTF-8."
    if raw.startswith("/"):
        return "The name is absolute."
    if _DRIVE.match(raw):
        return "The name begins with a drive letter."
    if ".." in raw.split("/"):
        return "The name leaves the archive through '..'."
    return None
