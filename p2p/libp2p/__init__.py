"""The network on py-libp2p; the only package that imports it.

``host`` opens a node and carries out what ``network.Network`` promises; ``stream`` is one of its
streams, ``listening`` its addresses, ``terms`` translates peer ids and errors, ``mends`` repairs the library;
``left_out`` says which parts of it are never loaded. What is left takes a third of a second and 70 MiB: import
``host`` where a node is opened, not before.
"""

from depin_node.p2p.libp2p.left_out import leave_out

leave_out()
