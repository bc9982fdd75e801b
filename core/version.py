"""Which build of this software runs: its release and, of a checkout, the commit. ``setup.py`` runs this file too."""

import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path

GIT_S = 5.0


def commit_of(root: Path) -> str:
    """Return ``g`` and the beginning of the hash of the commit that is checked out at ``root``, and ``.changed`` if
    files differ; empty where git, or a checkout, is not. Nothing else of it is told: no name, no path."""
    git = root / ".git"
    if not git.exists():
        return ""  # nor would that of a folder above be ours
    command = ["git", f"--git-dir={git}", f"--work-tree={root}", "describe", "--always", "--exclude=*", "--abbrev=10"]
    try:
        done = subprocess.run([*command, "--dirty=.changed"], capture_output=True, text=True, timeout=GIT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return f"g{done.stdout.strip()}"


@cache
def software_version() -> str:
    """Return the version as nodes and users see it: ``0.1.0+g0b7b2ba9c1``, or ``0.1.0`` where no commit is known.

    As of the first call: what a process has loaded does not change with its checkout.
    """
    built = version("depin-node")  # of a checkout, as of when it was installed
    commit = commit_of(Path(__file__).parent.parent)
    return f"{built.partition('+')[0]}+{commit}" if commit else built
