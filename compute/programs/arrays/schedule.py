"""Which arrays of a graph lie in memory, and which are computed where they are used.

Reductions, scans, sorts, joins and the library's operations write memory, and so do results. Of what is left, views
cost nothing. An elementwise array is computed where it is used if that is in one kernel at one place (its *context*)
and not for more elements than it has; else it is computed once, into memory. So no array is computed twice, and the
text of a kernel is never longer than the graph.
"""

from collections.abc import Iterable, Sequence

from depin_node.compute.programs.arrays.array import Array
from depin_node.compute.programs.arrays.dtypes import TraceError
from depin_node.compute.programs.arrays.emit import COMPUTED, CREATED
from depin_node.compute.programs.arrays.indices import VIEWS
from depin_node.compute.programs.arrays.words import WORDS

GRAPH_MAX = 20_000
DEPTH_MAX = 60
"""Arrays that are computed one from the other in one kernel."""
CHEAP = 4
"""A function that costs less may be computed again for each element that it is broadcast to."""

Context = tuple[object, ...]


def in_order(results: Iterable[Array]) -> list[Array]:
    """Return all arrays that ``results`` are made of, each after those that it is made of.

    Raises:
        TraceError: there are too many.
    """
    order: list[Array] = []
    seen: set[Array] = set()
    stack = [(array, False) for array in reversed(list(results))]
    while stack:
        array, done = stack.pop()
        if done:
            order.append(array)
        elif array not in seen:
            seen.add(array)
            stack.append((array, True))
            stack += [(operand, False) for operand in reversed(array.inputs)]
        if len(seen) > GRAPH_MAX:
            raise TraceError(f"more than {GRAPH_MAX} steps were recorded: write loops over elements as whole arrays")
    return order


def place(order: Sequence[Array], results: Iterable[Array]) -> set[Array]:
    """Return the arrays that have to lie in memory; inputs and constants do anyway and are not among them."""
    memory = {array for array in results if array.op not in ("input", "constant")}
    for array in order:
        if array.op not in COMPUTED and array.op not in CREATED and array.op not in VIEWS | {"input", "constant"}:
            memory.add(array)
        if array.op == "call":
            memory |= {operand for operand in array.inputs if operand.op not in ("input", "constant")}
        if array.op == "search":
            memory |= {a for k, a in enumerate(array.inputs) if k != 1 and a.op not in ("input", "constant")}
    contexts: dict[Array, set[Context]] = {array: set() for array in order}
    depths = dict.fromkeys(order, 0)
    spread: dict[Array, int] = dict.fromkeys(order, 0)
    for array in reversed(order):
        if array not in memory and _has_to_lie(array, contexts[array], depths[array], spread[array]):
            memory.add(array)
        if array in memory:
            own: set[Context] = {(array,)}
            depth, elements = 0, array.size if array.op in COMPUTED | VIEWS else 0
        else:
            own, depth, elements = contexts[array], depths[array] + 1, spread[array]
        for number, operand in enumerate(array.inputs):
            step = _edge(array, number)
            contexts[operand] |= {context if step is None else (*context, step) for context in own}
            depths[operand] = max(depths[operand], depth)
            spread[operand] = max(spread[operand], elements)
    return memory


def _has_to_lie(array: Array, contexts: set[Context], depth: int, elements: int) -> bool:
    if array.op in CREATED or array.op in ("input", "constant"):
        return False
    if depth > DEPTH_MAX:
        return True
    if array.op in VIEWS:
        return False
    return len(contexts) > 1 or (elements > array.size and not _cheap(array))


def _cheap(array: Array) -> bool:
    """Whether an array costs little to compute again: one simple function of what lies in memory."""
    cost = WORDS[array.op].cost if array.op in WORDS else 1
    return cost < CHEAP and array.op in {*WORDS, "astype"} and not any(_computes(operand) for operand in array.inputs)


def _computes(array: Array) -> bool:
    while array.op in VIEWS:
        array = array.inputs[0]
    return array.op in COMPUTED


def _edge(array: Array, number: int) -> object:
    """Return what tells the place of an operand's element from that of the result's; None: it is the same."""
    if array.op in VIEWS:
        attributes = tuple(sorted((name, str(value)) for name, value in array.attributes.items()))
        return (array.op, array.inputs[0].shape, array.shape, attributes)
    if array.op in ("take", "take_along"):
        return (array, number) if (array.op, number) != ("take_along", 1) else None
    if array.op in COMPUTED:
        return None
    return number
