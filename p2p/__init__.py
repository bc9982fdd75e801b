"""How nodes find and reach each other; the same interface on libp2p and in memory (``network.py``)."""
