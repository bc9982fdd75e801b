"""Receipts in a file, straight from the data directory: whether the node runs or not."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

from depin_node.compute.jobs.journal import Journal
from depin_node.compute.trust.chain import origin
from depin_node.compute.trust.export import Record, write_export
from depin_node.core.errors import ConfigError, NotFoundError
from depin_node.core.local import DataDir
from depin_node.crypto import identity as identities


def export_receipts(data_dir: DataDir, network: str, to: Path, job: bytes | None = None) -> int:
    """Write the log of the node in ``data_dir`` to a new file, and return how many entries it has.

    Args:
        data_dir: the node's.
        network: the network id that it takes part in.
        to: must not exist yet; appears whole or not at all.
        job: only the receipts of this job.

    Raises:
        ConfigError: there is no node in that directory, or the file exists or cannot be written.
        NotFoundError: there are no receipts to export.
        ResourceError: the journal cannot be read.
    """
    identity = identities.load(data_dir.identity)
    temporary = to.with_name(f".{to.name}.{os.getpid()}.tmp")
    if not data_dir.journal.exists():
        raise NotFoundError(f"{data_dir.journal}: there is no journal here, and so no receipts")
    journal = Journal(data_dir.journal)
    try:
        head = journal.log_head()
        link = head.link if head is not None else origin(identity.key)
        with temporary.open("xb") as file:
            entries = write_export(
                file,
                identity,
                network,
                _records(journal, job),
                head=link,
                is_whole=job is None,
                at_s=int(time.time()),
            )
            file.flush()
            os.fsync(file.fileno())
        if not entries:
            raise NotFoundError("there are no receipts to export" + (" of that job" if job else ""))
        os.link(temporary, to)
    except FileExistsError as error:
        raise ConfigError(f"{to}: exists already; name another file, or remove it") from error
    except OSError as error:
        raise ConfigError(f"{to}: cannot be written: {error.strerror}") from error
    finally:
        journal.close()
        temporary.unlink(missing_ok=True)
    return entries


def _records(journal: Journal, job: bytes | None) -> Iterator[Record]:
    for receipt, countersign in journal.log_records(job):
        yield Record(receipt, countersign or b"")
