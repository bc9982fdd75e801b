"""Offers, bids, agreements: the messages and the two machines of ``market/2``."""
