"""The network on py-libp2p; the only package that imports it.

``host`` opens a node and carries out what ``network.Network`` promises; ``stream`` is one of its
streams, ``listening`` its addresses, ``terms`` translates peer ids and errors, ``mends`` repairs the library.
Importing libp2p costs 0.44 s and 83 MB: import ``host`` where a node is opened, not before.
"""
