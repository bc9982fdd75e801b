"""Where a node keeps its files, and how other processes of the same user find the running one.

A *data directory* is one node: its identity, journal, blobs and log. A running node writes ``control.json`` there (mode
0600), with the URL of its control API and the token that opens it; the client reads it. Whoever can read the directory
is the operator.
"""

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from depin_node.core.errors import TransportError

DATA_DIR_VARIABLE = "DEPIN_DATA_DIR"


class NotRunningError(TransportError):
    """No node runs on the data directory that was asked for."""

    code = "not_running"


class ControlFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to reach a running node: the base ``url`` of its control API, the bearer ``token``, its process id."""

    url: str
    token: str
    pid: int


@dataclass(frozen=True)
class DataDir:
    """The files of one node."""

    path: Path

    @classmethod
    def locate(cls, path: str | os.PathLike[str] | None = None) -> "DataDir":
        """Return the directory given, else ``DEPIN_DATA_DIR``, else the platform's place for user data."""
        chosen = path or os.environ.get(DATA_DIR_VARIABLE)
        if chosen:
            return cls(Path(chosen).expanduser().absolute())
        import platformdirs  # 20 ms that most callers need not pay

        return cls(Path(platformdirs.user_data_dir("depin-node", appauthor=False)))

    @property
    def config(self) -> Path:
        """The configuration: TOML, written by the user."""
        return self.path / "config.toml"

    @property
    def speeds(self) -> Path:
        """What the devices of this machine were measured to do; removed, they are measured again."""
        return self.path / "speeds.json"

    @property
    def first_peers(self) -> Path:
        """Addresses of peers to join by, one a line, written by the user."""
        return self.path / "peers.txt"

    @property
    def identity(self) -> Path:
        """The node's key."""
        return self.path / "identity"

    @property
    def owner_key(self) -> Path:
        """The owner's key, on the one machine that signs certificates; nodes do not need it."""
        return self.path / "owner.key"

    @property
    def owner_certificate(self) -> Path:
        """The owner's word that this node is its own."""
        return self.path / "owner.cert"

    @property
    def owner_revoked(self) -> Path:
        """The newest list of what this node's owner has revoked: put here by the owner, or heard from a fellow."""
        return self.path / "owner.revoked"

    @property
    def journal(self) -> Path:
        """The database of all that was promised."""
        return self.path / "journal.sqlite"

    @property
    def blobs(self) -> Path:
        """The folder of the blob store."""
        return self.path / "blobs"

    @property
    def log(self) -> Path:
        """The newest log file; older ones lie beside it."""
        return self.path / "logs" / "node.log"

    @property
    def lock(self) -> Path:
        """The file that a running node holds locked; it contains the node's process id."""
        return self.path / "lock"

    @property
    def control(self) -> Path:
        """How to reach the running node."""
        return self.path / "control.json"

    def read_control(self) -> ControlFile:
        """Return how to reach the node that runs here.

        Raises:
            NotRunningError: none does, or it left its file behind when it died.
        """
        try:
            control = msgspec.json.decode(self.control.read_bytes(), type=ControlFile)
        except FileNotFoundError:
            raise self.not_running() from None
        except (OSError, msgspec.DecodeError) as error:
            raise NotRunningError(f"{self.control}: cannot be read ({error}); restart the node") from error
        if not _is_alive(control.pid):
            raise self.not_running("the last one died")
        return control

    def holder(self) -> int | None:
        """Return the process that holds this directory, if one does: a node, also while it starts or stops."""
        try:
            with self.lock.open("rb") as lock:
                pid = int(lock.read(20) or 0)
                if not _is_alive(pid):
                    return None
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # given back at once: the holder was another process
        except BlockingIOError:
            return pid
        except (OSError, ValueError):
            return None
        return None

    def not_running(self, why: str = "") -> NotRunningError:
        """Return the error that says that no node runs here and how to start one, or that one will soon."""
        if pid := self.holder():
            return NotRunningError(f"the node on {self.path} is starting, or stopping (process {pid}): ask again soon")
        return NotRunningError(
            f"no node is running on {self.path}{f' ({why})' if why else ''};"
            f" start it with: depin-node start --data-dir {self.path}"
        )


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    except OverflowError:
        return False
    return pid > 0
