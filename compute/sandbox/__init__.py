"""Where strangers' kernels run: worker processes with limits (``worker``), and the node's side of them (``pool``).

Nothing is imported here: the worker must not load what only the node needs, nor the node NumPy and wasmtime.
"""
