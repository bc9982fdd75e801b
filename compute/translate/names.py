"""From the text of a type to the type: names looked up in clang's scopes, records taken over with their members.

What the device header offers (``float4``, ``size_t``, …) is known here by name; ``headers/surface.h`` declares the same
to clang, and a test holds the two together.
"""

from collections.abc import Sequence
from typing import Final

from depin_node.compute.translate.errors import Unsupported
from depin_node.compute.translate.frontend import Node
from depin_node.compute.translate.index import RECORDS, Index, Scope, children
from depin_node.compute.translate.types import (
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    Argument,
    Array,
    Field,
    Name,
    Pointer,
    Record,
    Reference,
    Scalar,
    Type,
    TypeTextError,
    Void,
    align_of,
    has_pointer,
    homogeneous,
    members_end,
    parse_argument,
    parse_type,
    shorten,
    size_of,
)

TYPEDEFS: Final[dict[str, Type]] = {
    "size_t": U64,
    "ptrdiff_t": I64,
    "uintptr_t": U64,
    "intptr_t": I64,
    "int8_t": I8,
    "uint8_t": U8,
    "int16_t": I16,
    "uint16_t": U16,
    "int32_t": I32,
    "uint32_t": U32,
    "int64_t": I64,
    "uint64_t": U64,
    "uchar": U8,
    "ushort": U16,
    "uint": U32,
    "ulong": U64,
    "__size_t": U64,
    "__ptrdiff_t": I64,
}
_VECTORS = {
    "char": (I8, 2, 4),
    "uchar": (U8, 2, 4),
    "short": (I16, 4, 8),
    "ushort": (U16, 4, 8),
    "int": (I32, 8, 16),
    "uint": (U32, 8, 16),
    "long": (I64, 16, 16),
    "ulong": (U64, 16, 16),
    "longlong": (I64, 16, 16),
    "ulonglong": (U64, 16, 16),
    "float": (F32, 8, 16),
    "double": (F64, 16, 16),
}


def _vector(name: str, scalar: Scalar, lanes: int, align: int) -> Record:
    members = [Field(lane, scalar, lane) for lane in "xyzw"[:lanes]]
    return Record(name, f"cuda::{name}", align=align, fields=members)


BUILTIN_RECORDS: Final[dict[str, Record]] = {
    f"{name}{lanes}": _vector(f"{name}{lanes}", scalar, lanes, {2: align2, 4: align4}.get(lanes, 0))
    for name, (scalar, align2, align4) in _VECTORS.items()
    for lanes in (1, 2, 3, 4)
}
BUILTIN_RECORDS["dim3"] = _vector("dim3", U32, 3, 0)
_LIBRARY_NUMBERS = {("__half", U16): "float16", ("complex", F32): "complex64", ("complex", F64): "complex128"}
"""The dtypes of our library's classes, by their name and what they consist of."""
_TYPEDEF_DEPTH_MAX = 64
OBJECT_BYTES_MAX = 1 << 30


def _arguments(node: Node) -> list[Node]:
    return [child for child in children(node) if child.get("kind") == "TemplateArgument"]


def _parameters(template: Node) -> list[Node]:
    kinds = ("TemplateTypeParmDecl", "NonTypeTemplateParmDecl", "TemplateTemplateParmDecl")
    return [child for child in children(template) if child.get("kind") in kinds]


def _holds(type_: Type, record: Record) -> bool:
    """Whether an object of a type has a subobject that is such a record."""
    if isinstance(type_, Array):
        return _holds(type_.element, record)
    if not isinstance(type_, Record):
        return False
    return (
        type_ is record
        or any(_holds(f.type, record) for f in type_.fields)
        or any(other is record for other, _ in type_.bases)
    )


def _equal(mine: Argument | None, other: Argument) -> bool:
    """Compare template arguments. Clang's JSON gives integers sign-extended, of ``bool`` even: true is -1."""
    if isinstance(mine, int) and isinstance(other, int) and mine < 0 < other:
        return other - mine in (2, 1 << 8, 1 << 16, 1 << 32, 1 << 64)
    return mine == other


class Types:
    """Resolves types of one source. ``records`` are those met, members before what holds them."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self.records: list[Record] = []
        self._by_id: dict[str, Record] = {}
        self.nodes: dict[str, Node] = {}
        """The definitions of ``records``, by their names in the generated code."""
        self._known: dict[tuple[int, str], Type] = {}
        self._resolving: set[tuple[int, str]] = set()
        self._depth = 0

    def of(self, node: Node, scope: Scope) -> Type:
        """Return the type of an expression or a declaration.

        Raises:
            Unsupported: it is not understood.
        """
        text = node.get("type", {})
        try:
            return self.resolve(text.get("desugaredQualType", text.get("qualType", "")), scope)
        except TypeTextError as first:
            if "desugaredQualType" in text:
                try:
                    return self.resolve(text["qualType"], scope)
                except TypeTextError:
                    pass
            raise Unsupported(str(first), node["_line"], node["_column"]) from None

    def resolve(self, text: str, scope: Scope) -> Type:
        """Return the type that a text means within a scope.

        Raises:
            TypeTextError: it is not understood.
        """
        key = (id(scope), text)
        if key not in self._known:
            if key in self._resolving:
                raise TypeTextError(f"the type {shorten(text)!r} is defined by itself")
            self._resolving.add(key)
            try:
                self._known[key] = parse_type(text, lambda n: self._named(n, scope), lambda n: self._constant(n, scope))
            finally:
                self._resolving.discard(key)
        return self._known[key]

    def _named(self, names: Sequence[Name], scope: Scope) -> Type:
        first = names[0].text
        if first.startswith("("):
            return self._unnamed(first, scope)
        place: Scope | None = scope
        while place is not None:
            found = self._within(names, place)
            if found is not None:
                return found
            place = place.parent
        last = names[-1].text
        if last.startswith("("):
            return self._unnamed(last, scope)
        plain = len(names) == 1 or (len(names) == 2 and first == "std")  # <cstdint>'s are in both
        if plain and names[-1].arguments is None and (last in BUILTIN_RECORDS or last in TYPEDEFS):
            return BUILTIN_RECORDS.get(last) or TYPEDEFS[last]
        found = self._anywhere(names[-1])
        if found is None:
            raise TypeTextError(f"the type {shorten('::'.join(n.text for n in names))!r} is not supported")
        return found

    def _within(self, names: Sequence[Name], place: Scope) -> Type | None:
        """Look a qualified name up from one scope, without going outwards."""
        for position, name in enumerate(names):
            if name.text in place.inner and position + 1 < len(names):
                place = place.inner[name.text]
                continue
            node = self._choose(place.types.get(name.text, []), name, place)
            if node is None:
                return None
            if position + 1 == len(names):
                return self._declared(node, place)
            node = self.index.definition(node["id"]) or node
            if "_scope" not in node:
                return None
            place = node["_scope"]
        return None

    def _anywhere(self, name: Name) -> Type | None:
        """Find the only type of that name in the whole source: clang prints some names without their scope."""
        found = []
        for scope in self.index.scopes:
            node = self._choose(scope.types.get(name.text, []), name, scope)
            if node is not None:
                found.append(self._declared(node, scope))
        return found[0] if found and all(other == found[0] for other in found) else None

    def _choose(self, nodes: Sequence[Node], name: Name, place: Scope) -> Node | None:
        matching = self._matching(nodes, name, place)
        if len(matching) > 1 and name.arguments is not None:
            alike = {key: self._alike(node, name.arguments, place) for key, node in matching.items()}
            matching = {key: node for key, node in matching.items() if alike[key] == max(alike.values())}
            defaulted = {key: node for key, node in matching.items() if self._rest_is_default(node, name, place)}
            matching = defaulted or matching
        if len(matching) > 1 and any(node["kind"] in RECORDS for node in matching.values()):
            records = {key: node for key, node in matching.items() if node["kind"] in RECORDS}
            if len(records) > 1:
                raise TypeTextError(f"{name.text} is ambiguous here: write out its default template arguments")
            matching = records
        return next(reversed(matching.values()), None)

    def _matching(self, nodes: Sequence[Node], name: Name, place: Scope) -> dict[str, Node]:
        matching: dict[str, Node] = {}
        for node in nodes:
            special = node["kind"] == "ClassTemplateSpecializationDecl"
            if special == (name.arguments is not None) and not (node["_pattern"] and not special):
                if special and not self._same_arguments(node, name.arguments or (), place):
                    continue
                defined = self.index.definition(node["id"]) or node
                matching[defined["id"]] = defined
        return matching

    def _same_arguments(self, node: Node, wanted: Sequence[Argument], place: Scope) -> bool:
        """Compare; clang does not print trailing arguments that equal their default."""
        own = _arguments(node)
        if len(own) < len(wanted):
            return False
        try:
            return all(_equal(self._argument(mine, place), other) for mine, other in zip(own, wanted, strict=False))
        except TypeTextError:  # an argument of which the type that is looked for is a part: it cannot be that type
            return False

    def _alike(self, node: Node, wanted: Sequence[Argument], place: Scope) -> int:
        """Count the arguments that are just those wanted: of 1 and -1, which may be ``true``, an integer's is one."""
        return sum(self._argument(mine, place) == other for mine, other in zip(_arguments(node), wanted, strict=False))

    def _argument(self, argument: Node, place: Scope) -> Argument | None:
        if "value" in argument:
            return int(argument["value"])
        if "type" in argument:
            text = argument["type"].get("desugaredQualType", argument["type"]["qualType"])
            return parse_argument(text, lambda n: self._named(n, place), lambda n: self._constant(n, place))
        return None

    def _rest_is_default(self, node: Node, name: Name, place: Scope) -> bool:
        """Whether the arguments that were not printed equal their parameters' defaults, as far as these are simple."""
        own, parameters = _arguments(node), _parameters(node.get("_template", {}))
        for position in range(len(name.arguments or ()), len(own)):
            if position >= len(parameters):
                return False
            default = next(iter(_arguments(parameters[position])), {})
            value = next(iter(children(default)), {}).get("value")
            names = [parameter.get("name") for parameter in parameters]
            text = default.get("type", {}).get("qualType")
            if text in names:
                wanted = self._argument(own[names.index(text)], place)
            elif text is not None:
                wanted = self._argument(default, place)
            else:
                wanted = int(value) if value is not None else None
            if wanted is None or not _equal(self._argument(own[position], place), wanted):
                return False
        return True

    def _declared(self, node: Node, place: Scope) -> Type:
        if node["kind"] in RECORDS:
            return self.record(node)
        if node["kind"] == "EnumDecl":
            return self._enumeration(node, place)
        self._depth += 1
        try:
            if self._depth > _TYPEDEF_DEPTH_MAX:
                raise TypeTextError(f"the type {shorten(node.get('name', ''))!r} is nested too deeply")
            direct = self._direct(node)
            if direct is not None:
                return self._declared(direct, place)
            text = node["type"]
            return self.resolve(text.get("desugaredQualType", text["qualType"]), place)
        finally:
            self._depth -= 1

    def _direct(self, node: Node) -> Node | None:
        """Return the record or enumeration that a typedef names, where clang says which it is."""
        for child in children(node):
            kind = child.get("kind", "")
            if kind in ("RecordType", "EnumType"):
                return self.index.definition(child.get("decl", {}).get("id", ""))
            if kind in ("ElaboratedType", "TypedefType", "SubstTemplateTypeParmType", "TemplateSpecializationType"):
                return self._direct(child)
        return None

    def _unnamed(self, text: str, scope: Scope) -> Type:
        """Find an unnamed record, or a lambda's closure, by its place.

        Templates have one for each instance at the same place: then it is the one that is declared around the scope, or
        that a template around it was given as an argument.
        """
        parts = text.rstrip(")").rsplit(":", 2)
        if len(parts) == 3 and parts[1].isdigit() and parts[2].isdigit():
            found = self.index.unnamed.get((int(parts[1]), int(parts[2])), {})
            around, arguments = list[Scope](), set[str]()
            place: Scope | None = scope
            while place is not None:
                around.append(place)
                arguments |= place.arguments
                place = place.parent
            near = [node for node in found.values() if node["_around"] in around] or [
                node for key, node in found.items() if key in arguments
            ]
            if len(near) == 1 or len(found) == 1:
                return self._declared((near or list(found.values()))[0], self.index.root)
            if found:
                raise TypeTextError("which of several instances of this type is meant is not known: give it a name")
        raise TypeTextError("this unnamed type is not supported")

    def _enumeration(self, node: Node, place: Scope) -> Type:
        fixed = node.get("fixedUnderlyingType")
        if fixed:
            return self.resolve(fixed.get("desugaredQualType", fixed["qualType"]), place)
        values = [self.enumerator(child) for child in children(node) if child.get("kind") == "EnumConstantDecl"]
        low, high = min(values, default=0), max(values, default=0)
        if low < 0:
            return I32 if low >= -(1 << 31) and high < 1 << 31 else I64
        return U32 if high < 1 << 32 else U64

    def enumerator(self, node: Node) -> int:
        """Return the value of an enumerator.

        Raises:
            TypeTextError: its value is of a form that is not understood.
        """
        if "_value" not in node:
            for child in children(node):
                while child and "value" not in child:
                    child = next(iter(children(child)), {})
                if child:
                    node["_value"] = int(child["value"])
            if "_value" not in node:
                node["_value"] = self._after_previous(node)
        return int(node["_value"])

    def _after_previous(self, node: Node) -> int:
        previous = -1
        for sibling in children(node["_enum"]):
            if sibling is node:
                return previous + 1
            if sibling.get("kind") == "EnumConstantDecl":
                previous = self.enumerator(sibling)
        raise TypeTextError(f"the enumerator {node.get('name', '')!r} is not understood")

    def _constant(self, names: Sequence[Name], scope: Scope) -> int:
        place: Scope | None = scope
        while place is not None:
            if names[-1].text in place.constants:
                return self.enumerator(place.constants[names[-1].text])
            place = place.parent
        raise TypeTextError(f"the template argument {shorten(names[-1].text)!r} is not supported")

    def record(self, node: Node) -> Record:
        """Return the record that a declaration defines.

        Raises:
            Unsupported: it has a member or a base that is not supported.
        """
        node = self.index.definition(node["id"]) or node
        known = self._by_id.get(node["id"])
        if known is not None:
            return known
        name, line, column = node.get("name", "(unnamed)"), node["_line"], node["_column"]
        if not node.get("completeDefinition"):
            raise Unsupported(f"{name} is declared, but not defined", line, column)
        number = len(self._by_id)
        record = Record(name, f"R{number}", is_union=node.get("tagUsed") == "union")
        self._by_id[node["id"]] = record
        self.nodes[record.cpp] = node
        for base in node.get("bases", ()):
            self._add_base(record, base, node)
        for child in children(node):
            kind = child.get("kind", "")
            if kind == "FieldDecl":
                self._add_field(record, child, node["_scope"], closure="_captures" in node)
            elif kind == "AlignedAttr":
                record.align = max(record.align, self._alignment(child))
            elif kind in ("PackedAttr", "MaxFieldAlignmentAttr"):
                raise Unsupported(f"{name}: packed structs are not supported", child["_line"], child["_column"])
            elif kind == "CXXDestructorDecl" and not self._does_nothing(child):
                text = f"{name}: destructors that do something are not supported"
                raise Unsupported(text, child["_line"], child["_column"])
            elif child.get("virtual"):
                raise Unsupported(f"{name}: virtual functions are not supported", child["_line"], child["_column"])
        self._check_layout(record, node)
        if size_of(record) > OBJECT_BYTES_MAX:
            raise Unsupported(f"{name} is too large", line, column)
        parts = homogeneous(record) if node.get("_library") else None
        if parts is not None:
            record.dtype = _LIBRARY_NUMBERS.get((name, parts[0]), "")
        self.records.append(record)
        return record

    def _does_nothing(self, destructor: Node) -> bool:
        """Whether a destructor is empty; those of members are looked at where these are added."""
        if destructor.get("isImplicit") or destructor.get("explicitlyDefaulted"):
            return True
        destructor = self.index.definition(destructor["id"]) or destructor
        bodies = [child for child in children(destructor) if child.get("kind") == "CompoundStmt"]
        return bool(bodies) and not children(bodies[0])

    def _add_base(self, record: Record, base: Node, node: Node) -> None:
        """Put a base class in front of the members; one without members takes no place."""
        line, column = node["_line"], node["_column"]
        if base.get("isVirtual"):
            raise Unsupported(f"{record.name}: virtual base classes are not supported", line, column)
        type_ = self.of({**node, "type": base["type"]}, node["_scope"])
        if not isinstance(type_, Record) or type_.is_union or type_.cpp.startswith("cuda::"):
            raise Unsupported(f"{record.name}: this base class is not supported", line, column)
        if any(other is type_ for other, _ in record.bases):
            raise Unsupported(f"{record.name}: base classes that come twice are not supported", line, column)
        if not type_.fields:
            record.bases.append((type_, None))
            return
        field = Field(f"m{len(record.fields)}", type_, f"base {len(record.bases)}")
        record.bases.append((type_, field))
        record.fields.append(field)

    def _check_layout(self, record: Record, node: Node) -> None:
        """Refuse what lies elsewhere in C++ than in a struct whose first members are the bases."""
        end = inner_end = 0  # of the members so far; and where a base class's own padding would be used again
        for field in record.fields:
            align = align_of(field.type)
            start = -(-end // align) * align
            if start != -(-inner_end // align) * align:
                text = f"{record.name}: a base class with a member in its padding is not supported: reorder the members"
                raise Unsupported(text, node["_line"], node["_column"])
            end = inner_end = start + size_of(field.type)
            if any(base is field for _, base in record.bases) and isinstance(field.type, Record):
                inner_end = start + members_end(field.type)
        empty = [other for other, field in record.bases if field is None]
        if any(_holds(field.type, other) for other in empty for field in record.fields):
            text = f"{record.name}: a member of the type of an empty base class is not supported"
            raise Unsupported(text, node["_line"], node["_column"])

    def _add_field(self, record: Record, node: Node, scope: Scope, closure: bool) -> None:
        line, column = node["_line"], node["_column"]
        what = f"{record.name}::{node.get('name', '(unnamed)')}"
        if node.get("isBitfield"):
            raise Unsupported(f"{what}: bit-fields are not supported", line, column)
        if any(child.get("kind") == "AlignedAttr" for child in children(node)):
            raise Unsupported(f"{what}: alignment of single members is not supported", line, column)
        type_ = self.of(node, scope)
        by_reference = isinstance(type_, Reference) and closure
        if isinstance(type_, Reference) and closure:
            type_ = Pointer(type_.target)  # what a lambda has captured by reference
        if has_pointer(type_) and record.is_union:
            raise Unsupported(f"{what}: pointers inside unions are not supported", line, column)
        if isinstance(type_, Void | Reference) or (isinstance(type_, Array) and type_.count is None):
            raise Unsupported(f"{what}: this member is not supported", line, column)
        record.fields.append(Field(f"m{len(record.fields)}", type_, node["id"], by_reference))

    def _alignment(self, node: Node) -> int:
        for child in children(node):
            if "value" in child:
                return int(child["value"])
        raise Unsupported("this alignment is not supported", node["_line"], node["_column"])
