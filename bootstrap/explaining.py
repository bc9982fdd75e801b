"""``job explain``: the machine's judgement (``compute.jobs.explain``) over what this node knows of its peers."""

from collections.abc import Iterator

from depin_node.bootstrap.market import MarketContext
from depin_node.compute.jobs.events import JobEvent
from depin_node.compute.jobs.explain import EvidenceView, ExplainView, Prospect, explain
from depin_node.compute.jobs.job import Job, JobView
from depin_node.crypto.identity import peer_id
from depin_node.p2p.advert import common_protocol
from depin_node.p2p.directory import Entry


def explained(context: MarketContext, job: Job, view: JobView, story: list[JobEvent], price_max: int) -> ExplainView:
    """Return why a job is as it is, as far as this node can tell now."""
    evidence = (
        EvidenceView(peer_id(peer), task, reason, len(kept.commits), len(kept.reveals))
        for peer, of_job, task, reason, kept in context.journal.reader.evidence()
        if of_job.hex() == view.id
    )
    return explain(job, view, story, list(_prospects(context)), evidence, price_max)


def _prospects(context: MarketContext) -> Iterator[Prospect]:
    directory, banned = context.mesh.directory, context.book.reasons
    for entry in directory.peers():
        advert, is_fellow = entry.advert, context.mesh.is_fellow(entry.key) and not context.book.is_listed(entry.key)
        yield Prospect(
            group=peer_id(entry.key) if is_fellow else entry.group,  # as it would be, listed
            speaks=common_protocol(advert.protocol_min, advert.protocol_max) is not None,
            lending=advert.lending,
            reachable=not entry.is_unreachable and (entry.is_connected or bool(directory.dialable(entry))),
            banned=banned.get(entry.key, ""),
            price=advert.price,
            is_fellow=is_fellow,
            is_relayed=_is_relayed(context, entry),
            devices=tuple((device.device_class, device.memory_mib) for device in advert.devices),
        )


def _is_relayed(context: MarketContext, entry: Entry) -> bool:
    """Tell whether a peer is connected by way of a relay; or, if it is not connected, names one first."""
    path = context.network.path(entry.key)
    return path.relayed if path is not None else bool(entry.addresses and entry.addresses[0].relay)
