"""Settling in the scheduler: what audits mean for a job whose providers are few."""

from instant_mesh import InstantMesh

from depin_node.compute.jobs import events as e
from depin_node.compute.jobs.job import Confidence
from depin_node.compute.market import happenings as hp


class AuditedMesh(InstantMesh):
    """Each provider answers with its own name; this node's audits wait in ``audits``, by whose answers they are."""

    def __init__(self, **options):
        super().__init__(**options)
        self.audits = {}

    def carry_out(self, effect):
        if isinstance(effect, e.Audit):
            self.audits.setdefault(effect.root, []).append(effect)
        elif isinstance(effect, e.AskReveal):
            self.heard(effect, hp.Revealed([(effect.attempt, effect.peer)]))
            self.heard(effect, hp.Delivered(effect.attempt, effect.peer, [bytearray(8)]))
        else:
            super().carry_out(effect)

    def submit(self, tasks, policy):
        name = super().submit(tasks, policy)
        self.queue[0] = e.Submitted(name, self.queue[0].job, bytearray(tasks), lambda task: (8,), 8, can_audit=True)
        return name

    def audited(self, audit, root):
        """This node got ``root`` for a task; nothing, if it is empty."""
        self.queue.append(e.Audited(audit.job_id, audit.task, audit.root, root, is_far=False))
        self.run()


def test_an_audit_of_an_answer_that_is_void_asks_nothing_of_the_task():
    # It was under way when another audit voided the answer, and found its bytes gone. That is no reason to have the
    # task replicated, which one provider alone cannot do.
    mesh = AuditedMesh(providers=2, window=4)
    job = mesh.submit(40, Confidence(0.98, 0.2))
    mesh.run()
    liar, honest = sorted(mesh.audits, key=lambda peer: len(mesh.audits[peer]), reverse=True)
    first, second, *_ = mesh.audits.pop(liar)
    mesh.audited(first, b"another".ljust(32))
    mesh.audited(second, b"")
    while mesh.audits:
        for audit in mesh.audits.pop(honest):
            mesh.audited(audit, honest)
    assert mesh.ended[job].state == "done"
