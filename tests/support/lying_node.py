"""A node that breaks the market's promises, run like any other: ``python lying_node.py KIND start …``.

``reveals``: opens its commitments to something else. ``vanishes``: commits, and never shows what to.
"""

import sys

from depin_node.cli.main import main
from depin_node.compute.market.provider import ProviderTalk


def reveals(talk_class):
    honest = talk_class._reveals

    def lie(self):
        return tuple(type(reveal)(*[*fields(reveal)[:1], b"\x5a" * 32, *fields(reveal)[2:]]) for reveal in honest(self))

    talk_class._reveals = lie


def vanishes(talk_class):
    talk_class._commit_set = lambda self, commit_set: []


def fields(message):
    return [getattr(message, name) for name in message.__struct_fields__]


if __name__ == "__main__":
    kind = sys.argv.pop(1)
    {"reveals": reveals, "vanishes": vanishes}[kind](ProviderTalk)
    main()
