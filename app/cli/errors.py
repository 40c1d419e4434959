"""The one error of the commands."""


class CommandError(Exception):
    """One line for a person, and the exit code: 1 refused or failed, 2 wrong usage, 3 no service, 4 no valid key."""

    def __init__(self, line: str, exit_code: int = 1) -> None:
        super().__init__(line)
        self.exit_code = exit_code
