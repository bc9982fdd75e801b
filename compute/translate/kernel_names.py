"""Which kernel is meant: by its plain name, or by a *name expression* as NVRTC has them: ``ns::scale<double, 3>``.

A name expression is resolved by clang: a host function that takes its address is appended to the source, one line for
each, which instantiates the template; in clang's tree the reference in it says which function was meant. Nothing here
reads CUDA.
"""

from collections.abc import Sequence

from depin_node.compute.translate.errors import CompileError, Diagnostic, Unsupported
from depin_node.compute.translate.frontend import Node
from depin_node.compute.translate.index import Index, children, has_body

CHARACTERS_MAX = 256
EXPRESSIONS_MAX = 1024
_LOOKUP = "__depin_kernel_"
_PUNCTUATION = frozenset(" _:<>,*&()+-'")


def is_plain(name: str) -> bool:
    """Whether a name is an identifier, which needs no compiler to be resolved."""
    return name.isidentifier() and name.isascii()


def with_lookups(code: str, expressions: Sequence[str]) -> str:
    """Return the source with a lookup for each of these name expressions.

    Raises:
        Unsupported: one holds characters that no name expression has, or there are too many.
    """
    if len(expressions) > EXPRESSIONS_MAX:
        raise Unsupported(f"there are {len(expressions)} name expressions, at most {EXPRESSIONS_MAX} are allowed")
    for name in expressions:
        if len(name) > CHARACTERS_MAX or any(not (c.isascii() and c.isalnum()) and c not in _PUNCTUATION for c in name):
            raise Unsupported(f"{name[:100]!r} is not the name of a kernel: name<type, 3> or space::name are")
    if not expressions:
        return code
    lines = [f"static void {_LOOKUP}{place}() {{ (void)&({name}); }}" for place, name in enumerate(expressions)]
    return code + "\n\n" + "\n".join(lines) + "\n"


def explain(error: CompileError, code: str, expressions: Sequence[str], filename: str) -> CompileError:
    """Return the error with the findings in appended lines told of the name that they are about."""
    first, found = code.count("\n") + 3, []
    for finding in error.diagnostics:
        place = finding.line - first
        if 0 <= place < len(expressions) and not finding.file.replace(filename, ""):
            found.append(Diagnostic(f"the kernel name {expressions[place]!r}: {finding.text}"))
        else:
            found.append(finding)
    return CompileError(found, filename)


def find_kernels(index: Index, names: Sequence[str], expressions: Sequence[str]) -> list[Node]:
    """Return the definition of each kernel; ``expressions`` are those that have a lookup, in that order.

    Raises:
        Unsupported: there is no such kernel, or more than one.
    """
    lookups = {node.get("name", ""): node for node in index.functions}
    found = []
    for name in names:
        if is_plain(name):
            found.append(_by_name(index, name))
        else:
            found.append(_referenced(index, name, lookups[f"{_LOOKUP}{expressions.index(name)}"]))
    return found


def _is_kernel(node: Node) -> bool:
    return has_body(node) and any(child.get("kind") == "CUDAGlobalAttr" for child in children(node))


def _by_name(index: Index, name: str) -> Node:
    kernels = [node for node in index.functions if _is_kernel(node)]
    matching = [node for node in kernels if name in (node.get("name"), node.get("mangledName"))]
    templates = [node for node in index.by_id.values() if node["kind"] == "FunctionTemplateDecl"]
    template = next((node for node in templates if node.get("name") == name), None)
    if template is not None and len(matching) != 1:
        text = f"{name} is a template: name the kernel with its arguments, such as {name}<float>"
        raise Unsupported(text, template["_line"], template["_column"])
    if not matching:
        known = ", ".join(sorted({node.get("name", "") for node in kernels})[:10]) or "none"
        raise Unsupported(f"there is no kernel {name!r} in the source: it has {known}")
    if len(matching) > 1:
        place = matching[1]["_line"], matching[1]["_column"]
        raise Unsupported(f"there are {len(matching)} kernels {name!r}: give them different names", *place)
    return matching[0]


def _referenced(index: Index, name: str, lookup: Node) -> Node:
    stack = [lookup]
    while stack:
        node = stack.pop()
        if node.get("kind") == "DeclRefExpr":
            function = index.definition(node.get("referencedDecl", {}).get("id", ""))
            if function is not None and _is_kernel(function):
                return function
            raise Unsupported(f"{name} is not a kernel with a body")
        stack.extend(children(node))
    raise Unsupported(f"{name} is not a kernel")
