"""The SDK (being built)."""

from depin_node.client.api import Control


class Mesh(Control):
    """A connection to the running node."""

    def __enter__(self) -> "Mesh":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
