"""The packages of ``depin_node``: the folders at the root of the repository (pyproject.toml has the rest)."""

import runpy
from pathlib import Path

from setuptools import find_packages, setup

ROOTS = ("bootstrap", "cli", "client", "compute", "core", "crypto", "p2p")

ROOT = Path(__file__).parent
commit = runpy.run_path(str(ROOT / "core" / "version.py"))["commit_of"](ROOT)

setup(
    packages=[f"depin_node.{name}" for name in find_packages(include=[g for r in ROOTS for g in (r, f"{r}.*")])],
    options={"egg_info": {"tag_build": f"+{commit}"}} if commit else {},  # builds of several commits can be told apart
)
