"""The errors that callers of the domain catch and answer."""


class Refused(ValueError):
    """A request that the rules do not allow; nothing was changed.

    `code` is stable and meant for programs. `message` is meant for people: it says what was wrong
    and how to mend it, and never holds a secret.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)  # both, so that a pickled copy can be built again
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return self.message


class NotFound(Refused):
    """What the request names does not exist, or not for this caller."""


class Misconfigured(Exception):
    """A setting or a secret file is wrong; its message says which, and how to mend it."""
