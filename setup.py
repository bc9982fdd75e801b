"""The packages of ``depin_node``: the folders at the root of the repository (pyproject.toml has the rest)."""

from setuptools import find_packages, setup

ROOTS = ("bootstrap", "cli", "client", "compute", "core", "crypto", "p2p")

setup(packages=[f"depin_node.{name}" for name in find_packages(include=[g for r in ROOTS for g in (r, f"{r}.*")])])
