"""Receipts and evidence in files, straight from the data directory: whether the node runs or not."""

import os
import time
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

from depin_node.compute.jobs.journal import Journal
from depin_node.compute.jobs.schema import StoredCase
from depin_node.compute.trust.chain import origin
from depin_node.compute.trust.export import Record, write_export
from depin_node.core.errors import ConfigError, NotFoundError
from depin_node.core.local import DataDir
from depin_node.core.views import CaseView
from depin_node.crypto import identity as identities
from depin_node.crypto.identity import peer_id


def export_receipts(data_dir: DataDir, network: str, to: Path, job: str | None = None) -> int:
    """Write the log of the node in ``data_dir`` to a new file, and return how many entries it has.

    Args:
        data_dir: the node's.
        network: the network id that it takes part in.
        to: must not exist yet; appears whole or not at all.
        job: only the receipts of the job whose id begins so, in hex.

    Raises:
        ConfigError: no node is in that directory, the file exists or cannot be written, or ``job`` may be several.
        NotFoundError: there are no receipts to export.
        ResourceError: the journal cannot be read.
    """
    identity = identities.load(data_dir.identity)
    temporary = to.with_name(f".{to.name}.{os.getpid()}.tmp")
    if not data_dir.journal.exists():
        raise NotFoundError(f"{data_dir.journal}: there is no journal here, and so no receipts")
    journal = Journal(data_dir.journal)
    try:
        only = _job(journal, job) if job is not None else None
        head = journal.log_head()
        link = head.link if head is not None else origin(identity.key)
        # a cursor that is left half-read would find the journal closed
        with temporary.open("xb") as file, closing(_records(journal, only)) as records:
            entries = write_export(
                file,
                identity,
                network,
                records,
                head=link,
                is_whole=job is None,
                at_s=int(time.time()),
            )
            file.flush()
            os.fsync(file.fileno())
        if not entries:
            raise NotFoundError("there are no receipts to export")
        os.link(temporary, to)
    except FileExistsError as error:
        raise ConfigError(f"{to}: exists already; name another file, or remove it") from error
    except OSError as error:
        raise ConfigError(f"{to}: cannot be written: {error.strerror}") from error
    finally:
        journal.close()
        temporary.unlink(missing_ok=True)
    return entries


def _job(journal: Journal, begins: str) -> bytes:
    found = journal.jobs_with_receipts(begins)
    if not found:
        raise NotFoundError(f"there are no receipts of a job {begins!r}; see: depin-node receipts list")
    if len(found) > 1:
        raise ConfigError(f"{begins} is the beginning of {len(found)} jobs' ids: give more of it")
    return found[0]


def _records(journal: Journal, job: bytes | None) -> Generator[Record]:
    for receipt, countersign in journal.log_records(job):
        yield Record(receipt, countersign or b"")


def cases(data_dir: DataDir) -> list[CaseView]:
    """Return the proof of lies that a node holds, oldest first; none if it never ran.

    Raises:
        ConfigError, ResourceError: the journal cannot be read.
    """
    return [_view(case) for case in _cases(data_dir)]


def export_case(data_dir: DataDir, name: str, to: Path) -> CaseView:
    """Write one case to a new file.

    Args:
        data_dir: the node's.
        name: the beginning of its id, or the peer id of the accused.
        to: must not exist yet.

    Raises:
        NotFoundError: there is none of that name. ConfigError: there are several, or the file cannot be written.
    """
    found = [case for case in _cases(data_dir) if case.digest.hex().startswith(name) or peer_id(case.accused) == name]
    if not found:
        raise NotFoundError(f"there is no evidence {name}; see: depin-node evidence list")
    if len(found) > 1:
        raise ConfigError(f"{name} is the beginning of {len(found)} ids: give more of it")
    try:
        with to.open("xb") as file:
            file.write(found[0].data)
    except OSError as error:
        raise ConfigError(f"{to}: cannot be written: {error.strerror}") from error
    return _view(found[0])


def _cases(data_dir: DataDir) -> list[StoredCase]:
    if not data_dir.journal.exists():
        return []
    journal = Journal(data_dir.journal)
    try:
        return journal.cases()
    finally:
        journal.close()


def _view(case: StoredCase) -> CaseView:
    told_by = peer_id(case.told_by) if case.told_by else ""
    return CaseView(case.digest.hex(), peer_id(case.accused), case.kind, case.reason, told_by, float(case.at_s))
