"""Clang's JSON tree, made walkable: the place of every node, declarations by id, names by scope.

Clang leaves out of each location the file and line that equal those of the location it printed before, so places can
only be read in the order of the text; ``Index`` does that once, and puts ``_line`` and ``_column`` into every node. On
the way it builds the scopes, because types are given as text, and their names have to be looked up where they stand.
"""

from dataclasses import dataclass, field
from typing import Any

from depin_node.compute.translate.frontend import SOURCE, SURFACE, VIRTUAL, Node

SCOPES = frozenset(
    {
        *("NamespaceDecl", "CXXRecordDecl", "ClassTemplateSpecializationDecl", "FunctionDecl", "CXXMethodDecl"),
        *(
            "CXXConstructorDecl",
            "CXXConversionDecl",
            "CompoundStmt",
            "ForStmt",
            "CXXForRangeStmt",
            "IfStmt",
            "SwitchStmt",
        ),
    }
)
FUNCTIONS = frozenset({"FunctionDecl", "CXXMethodDecl", "CXXConstructorDecl", "CXXConversionDecl", "CXXDestructorDecl"})
RECORDS = frozenset({"CXXRecordDecl", "ClassTemplateSpecializationDecl"})
TEMPLATES = frozenset({"ClassTemplateDecl", "FunctionTemplateDecl", "VarTemplateDecl"})
NAMED_TYPES = RECORDS | {"TypedefDecl", "TypeAliasDecl", "EnumDecl"}


@dataclass(eq=False)
class Scope:
    """A region of names. ``types``: typedefs, records (specialisations by their template's name), enumerations."""

    name: str
    parent: "Scope | None"
    types: dict[str, list[Node]] = field(default_factory=dict)
    inner: dict[str, "Scope"] = field(default_factory=dict)
    """Namespaces, by name."""
    constants: dict[str, Node] = field(default_factory=dict)
    """Enumerators, by name."""
    arguments: frozenset[str] = frozenset()
    """The ids of the records that are template arguments of what opened the scope."""


class Index:
    """See the module.

    Attributes:
        by_id: every declaration of the user's source, by clang's id.
        definitions: the declaration with a body (or all members), for the id of each declaration of the same thing.
        scopes: all of them, the outermost first.
        functions: the functions at namespace scope, templates' patterns left out.
        constructors: by their type's text.
        unnamed: records, enumerations and lambdas by their place; instances of templates have several at one place.
        assembly: ``asm`` outside of functions.
    """

    def __init__(self, tree: Node) -> None:
        self.by_id: dict[str, Node] = {}
        self.root = Scope("", None)
        self.scopes: list[Scope] = [self.root]
        self.functions: list[Node] = []
        self.constructors: dict[str, list[Node]] = {}
        self.assembly: list[Node] = []
        self.unnamed: dict[tuple[int, int], dict[str, Node]] = {}
        self._first: dict[str, str] = {}
        self._definitions: dict[str, Node] = {}
        self._file, self._line = "", 0
        self._enum: Node = {}
        self._walk(tree, self.root, None, False)

    def definition(self, node_id: str) -> Node | None:
        """Return the defining declaration for the id of any declaration of it; None if the source has none."""
        first = self._first.get(node_id, node_id)
        return self._definitions.get(first) or self.by_id.get(node_id)

    def is_static(self, node: Node) -> bool:
        """Whether a member function has no object; only the declaration within the class says so."""
        identity: str = node["id"]
        first = self.by_id.get(self._first.get(identity, identity), node)
        return "static" in (node.get("storageClass"), first.get("storageClass"))

    def _walk(self, node: Node, scope: Scope, record: Node | None, pattern: bool) -> None:
        place = self._place(node)
        library = self._file != SOURCE and self._file != SURFACE and self._file.startswith(VIRTUAL)
        node["_line"], node["_column"] = (0, 0) if library else place  # lines are those of the user's source
        kind = node.get("kind", "")
        if kind in RECORDS:
            node["_library"] = library
        if self._file == SOURCE or library or not node.get("loc"):
            self._declare(node, kind, scope, record, pattern)
        if kind in SCOPES:
            scope = self._open(node, kind, scope)
            node["_scope"] = scope
        if kind in RECORDS:
            record = node
        elif kind in FUNCTIONS:
            record = None
        if kind == "LambdaExpr":  # its body comes twice: within the closure's operator(), and after the captures
            closure, *captures = node["inner"][:-1]
            closure["_captures"] = captures
            for child in node["inner"][:-1]:
                self._walk(child, scope, record, pattern)
            self._pass(node["inner"][-1])
            return
        template = kind in TEMPLATES
        for key in ("array_filler", "inner"):
            for child in node.get(key, ()):
                if child:
                    if kind == "ClassTemplateDecl":
                        child["_template"] = node
                    is_pattern = pattern or (template and "TemplateInstantiationPattern" not in child)
                    self._walk(child, scope, record, is_pattern)

    def _pass(self, node: Node) -> None:
        """Follow the places in a part of the tree that is not needed."""
        self._place(node)
        for key in ("array_filler", "inner"):
            for child in node.get(key, ()):
                if child:
                    self._pass(child)

    def _place(self, node: Node) -> tuple[int, int]:
        own = self._locate(node.get("loc"))
        span: Any = node.get("range")
        if span:
            begin = self._locate(span.get("begin"))
            keep = self._file
            self._locate(span.get("end"))
            own = own or begin
            if not node.get("loc"):
                node["_file"] = keep
        return own or (0, 0)

    def _locate(self, location: Any) -> tuple[int, int] | None:
        if not location:
            return None
        if "expansionLoc" in location:
            self._locate(location.get("spellingLoc"))
            return self._locate(location["expansionLoc"])
        self._file = location.get("file", self._file)
        self._line = location.get("line", self._line)
        return (self._line, location["col"]) if "col" in location else None

    def _declare(self, node: Node, kind: str, scope: Scope, record: Node | None, pattern: bool) -> None:
        identity: str = node.get("id", "")
        if not identity or not kind.endswith("Decl"):
            return
        self.by_id[identity] = node
        node["_record"], node["_pattern"] = record, pattern
        previous: str = node.get("previousDecl", identity)
        first = self._first.get(previous, previous)
        self._first[identity] = first
        is_function = kind in FUNCTIONS
        if is_function and (has_body(node) or first not in self._definitions):
            self._definitions[first] = node
        if kind in RECORDS and (node.get("completeDefinition") or first not in self._definitions):
            self._definitions[first] = node
        if kind == "FileScopeAsmDecl":
            self.assembly.append(node)
        if kind == "CXXConstructorDecl":
            self.constructors.setdefault(node.get("type", {}).get("qualType", ""), []).append(node)
        if kind == "FunctionDecl" and not pattern:
            self.functions.append(node)
        if kind == "EnumConstantDecl":
            node["_enum"] = self._enum
            scope.constants[node.get("name", "")] = node
        if kind == "EnumDecl":
            self._enum = node
        if kind in NAMED_TYPES and ("_captures" in node or not node.get("isImplicit")):
            if node.get("name"):
                scope.types.setdefault(node["name"], []).append(node)
            else:
                self.unnamed.setdefault((node["_line"], node["_column"]), {})[identity] = node
            node["_around"] = scope

    def _open(self, node: Node, kind: str, scope: Scope) -> Scope:
        name = node.get("name", "")
        if kind == "NamespaceDecl":
            if node.get("isInline") or not name:
                return scope
            if name not in scope.inner:
                scope.inner[name] = self._scope(name, scope, node)
            return scope.inner[name]
        outer = self.by_id.get(node.get("parentDeclContextId", ""))
        if kind in FUNCTIONS and outer and "_scope" in outer:
            scope = outer["_scope"]
            node["_record"] = outer
        return self._scope(name, scope, node)

    def _scope(self, name: str, parent: Scope, node: Node) -> Scope:
        arguments = [child for child in children(node) if child.get("kind") == "TemplateArgument"]
        named = frozenset(argument["decl"]["id"] for argument in _flat(arguments) if "decl" in argument)
        self.scopes.append(Scope(name, parent, arguments=named))
        return self.scopes[-1]


def _flat(nodes: list[Node]) -> list[Node]:
    """Return nodes and all that is below them."""
    return [found for node in nodes for found in (node, *_flat(children(node)))]


def children(node: Node) -> list[Node]:
    """Return a node's children; a missing one (``for (;;)``) is an empty node."""
    return [child or {} for child in node.get("inner", [])]


def has_body(node: Node) -> bool:
    """Whether a function's declaration is its definition."""
    return any(child.get("kind") == "CompoundStmt" for child in children(node))
