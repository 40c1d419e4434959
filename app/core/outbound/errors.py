"""This module has the error of a request to an address that a caller named."""


class OutboundError(Exception):
    """A request was refused, or it failed. `code` is stable, `remedy` says what can be done."""

    def __init__(self, code: str, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.remedy = remedy


class Unsteady(Exception):
    """A request failed in a way that may pass; trying again may help."""
