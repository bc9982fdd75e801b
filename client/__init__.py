"""The Python SDK."""

from depin_node.client.mesh import Mesh

__all__ = ["Mesh"]
