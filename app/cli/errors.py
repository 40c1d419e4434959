"""Define the error that all commands raise."""


class CommandError(Exception):
    """A failure: a line for a person, and an exit code (1 refused or failed, 2 usage, 3 no service, 4 no valid key)."""

    def __init__(self, line: str, exit_code: int = 1) -> None:
        super().__init__(line)
        self.exit_code = exit_code
