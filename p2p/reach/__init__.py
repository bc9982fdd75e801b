"""How a node learns whether it can be reached, and what it does if not: dial-back, relays, hole punching, UPnP.

Two machines without I/O (``verdict``: what peers saw of us; ``desk``: the limits of a relay) and their shell,
``service``.
"""
