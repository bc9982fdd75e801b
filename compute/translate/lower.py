"""From clang's tree to the typed tree: what the kernels asked for reach, and nothing else.

Functions are lowered when a call reaches them, each instance of a template as a function of its own. Whatever is not
understood raises ``Unsupported`` with its place; what is never reached (other kernels, host code) does not matter.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from depin_node.compute.translate import tree as t
from depin_node.compute.translate.device_variables import check_only_read
from depin_node.compute.translate.errors import Unsupported
from depin_node.compute.translate.frontend import Node
from depin_node.compute.translate.index import Index, Scope, children, has_body
from depin_node.compute.translate.kernel_names import find_kernels
from depin_node.compute.translate.lower_calls import Calls, captured_variable, is_implicit, is_trivial
from depin_node.compute.translate.lower_statements import Statements
from depin_node.compute.translate.names import Types
from depin_node.compute.translate.semantics import body_of
from depin_node.compute.translate.types import (
    I32,
    VOID,
    Array,
    Pointer,
    Record,
    Reference,
    Type,
    TypeTextError,
    has_pointer,
    size_of,
)

FUNCTIONS_MAX = 2000
LOCAL_BYTES_MAX = 32 << 10
"""Of one local array or object; all of a thread's locals share a stack of ``backend.STACK_BYTES``."""
SHARED_BYTES_MAX = 48 << 10


class Lowering(Calls, Statements):
    """Lowers everything that is reachable from the kernels of a unit."""

    def __init__(self, index: Index) -> None:
        self.lowering = self
        self.index, self.types, self.scope = index, Types(index), index.root
        self.self_variable: t.Variable | None = None
        self._functions: dict[str, t.Function] = {}
        self._pending: list[tuple[Node, t.Function]] = []
        self._variables: dict[str, t.Variable] = {}
        self._globals: dict[str, t.Global] = {}
        self._shared: list[t.Variable] = []
        self._dynamic: list[t.Variable] = []
        self._count = 0
        self._function: t.Function | None = None
        self._node: Node = {}
        self._owners: dict[str, t.Function | None] = {}
        self._device: set[t.Variable] = set()
        self._constexpr: set[t.Function] = set()
        self._host_set: dict[str, Node] = {}

    def unit(self, names: Sequence[str], expressions: Sequence[str] = ()) -> t.Unit:
        """Lower the kernels of those names.

        Raises:
            Unsupported: there is no such kernel, or it uses something that is not supported.
        """
        for node in self.index.assembly:
            raise self.refuse("inline assembly is not supported: write it in CUDA C", node)
        entries = [self.function(node) for node in find_kernels(self.index, names, expressions)]
        while self._pending:
            self._lower_body(*self._pending.pop(0))
        functions = list(self._functions.values())
        self._hand_down_constants(functions)
        check_only_read(functions, self._device)
        kernels = [self._kernel(entry, functions) for entry in entries]
        return t.Unit(kernels, functions, self.types.records, list(self._globals.values()))

    def _kernel(self, entry: t.Function, functions: Sequence[t.Function]) -> t.Kernel:
        """Collect what one kernel reaches."""
        reached, stack, used = {entry}, [entry], set[t.Variable]()
        while stack:
            for node in t.walk(body_of(stack.pop())):
                if isinstance(node, t.Name):
                    used.add(node.variable)
                elif (
                    isinstance(node, t.Call) and isinstance(node.function, t.Function) and node.function not in reached
                ):
                    reached.add(node.function)
                    stack.append(node.function)
        static = [variable for variable in self._shared if variable in used]
        shared = sum(size_of(variable.type) for variable in static)
        if shared > SHARED_BYTES_MAX:
            line = static[-1].line
            raise Unsupported(f"{shared} bytes of shared memory, at most {SHARED_BYTES_MAX} are supported", line, 1)
        dynamic = [variable for variable in self._dynamic if variable in used]
        return t.Kernel(entry, [f for f in functions if f in reached], self.types.records, static, dynamic)

    # ---- functions

    def function(self, node: Node) -> t.Function:
        """Return the function that a declaration with a body defines; its body is lowered later."""
        if node["id"] in self._functions:
            return self._functions[node["id"]]
        if len(self._functions) >= FUNCTIONS_MAX:
            raise self.refuse(f"more than {FUNCTIONS_MAX} functions are not supported", node)
        name = node.get("name", "")
        if node.get("variadic"):
            raise self.refuse(f"{name}: functions with a variable number of arguments are not supported", node)
        function = t.Function(name, self._fresh("f", name), VOID, node["_line"])
        self._functions[node["id"]] = function
        if node.get("constexpr"):
            self._constexpr.add(function)
        record = node.get("_record") if node["kind"] != "FunctionDecl" else None  # a friend is no member
        with self._within(node):
            owner = self.types.record(record) if record else None
            if node["kind"] == "CXXConstructorDecl" and owner is not None:
                function.constructs, function.result = True, owner
                function.self_variable = t.Variable("this", self._fresh("v", "self"), owner, "local")
            elif owner is not None and not self.index.is_static(node):
                variable = t.Variable("this", self._fresh("v", "self"), Reference(owner), "parameter")
                function.self_variable = variable
                function.parameters.append(variable)
            for child in children(node):
                if child.get("kind") == "ParmVarDecl":
                    function.parameters.append(self._declare(child, "parameter", function))
            if not function.constructs:
                function.result = self._result(node)
        self._pending.append((node, function))
        return function

    def _result(self, node: Node) -> Type:
        """Read a function's result type: from what it returns, where the text of the type names something local."""
        text = node.get("type", {}).get("qualType", "")
        head, arrow, tail = text.rpartition(" -> ")
        result = (tail if arrow and head.startswith("auto ") else _before_parameters(text)).strip()
        try:
            return self.types.resolve(result, self.scope)
        except TypeTextError as error:
            returned = _find(node, "ReturnStmt")
            value = next(iter(children(returned)), None) if returned else None
            if value is None:
                raise self.refuse(str(error), node) from None
            type_ = self.type_of(value)
            return Reference(type_) if value.get("valueCategory") == "lvalue" else type_

    def constructor(self, record: Record, wanted: str) -> Node | None:
        """Return the constructor of that type (clang's text), if it does more than set to zero or copy."""
        definition = self.types.nodes.get(record.cpp, {})
        for node in _members(definition, "CXXConstructorDecl"):
            if node.get("type", {}).get("qualType") != wanted:
                continue
            node = self.index.definition(node["id"]) or node
            if is_implicit(node):
                copies = any(child.get("kind") == "ParmVarDecl" for child in children(node))
                if copies and is_trivial(definition, "moveCtor" if "&&" in wanted else "copyCtor"):
                    return None
                if not copies and not any(child.get("kind") == "CXXCtorInitializer" for child in children(node)):
                    return None
            if not has_body(node):
                raise self.refuse(f"a constructor of {record.name} is declared, but not defined", node)
            return node
        return None

    def _lower_body(self, node: Node, function: t.Function) -> None:
        self.self_variable, self._function, self._node = function.self_variable, function, node
        with self._within(node):
            start: list[t.Statement] = []
            for child in children(node):
                kind = child.get("kind")
                if kind == "CXXCtorInitializer" and function.constructs:
                    start.append(self._initialise_member(child, function))
                elif kind == "CompoundStmt":
                    function.body = t.Block(node["_line"], [*start, *self.block(child).body])
                elif kind == "CXXTryStmt":
                    raise self.refuse("exceptions are not supported", child)
        if function.body is None:
            raise self.refuse(f"{function.name} is declared, but not defined", node)

    def _initialise_member(self, node: Node, function: t.Function) -> t.Statement:
        """Lower one initialiser of a constructor: of a member, of a base class, or by another constructor."""
        member, base = node.get("anyInit", {}), node.get("baseInit")
        variable, value = function.self_variable, self.expression(self._last(node))
        if variable is None or not isinstance(variable.type, Record):
            raise Unsupported("this constructor is not supported", value.line, 1)
        target = t.Name(variable.type, value.line, variable)
        if base is not None and value.type != variable.type:
            return t.Evaluate(value.line, self._initialise_base(target, value))
        if not member and value.type == variable.type:  # a delegating constructor
            return t.Evaluate(value.line, t.Assign(variable.type, value.line, "", target, value, variable.type))
        for field in variable.type.fields:
            if field.id == member.get("id"):
                place = t.Member(field.type, value.line, target, field, variable.type)
                function.starts_as_zeros |= not _is_whole(field.type, value)
                return t.Block(value.line, [t.Evaluate(value.line, part) for part in _assign_all(place, value)])
        raise Unsupported("this constructor is not supported", value.line, 1)

    def _initialise_base(self, target: t.Name, value: t.Expression) -> t.Expression:
        assert isinstance(target.type, Record)
        for record, field in target.type.bases:
            if value.type is record and field is None:
                return value
            if value.type is record and field is not None:
                place = t.Member(record, value.line, target, field, target.type)
                return t.Assign(record, value.line, "", place, value, record)
        raise Unsupported("this constructor is not supported", value.line, 1)

    # ---- variables

    def variable(self, declared: Node, use: Node) -> t.Expression:
        """Return the variable that a name refers to; of a constant with a value, that value."""
        identity = declared["id"]
        if self._owners.get(identity, self._function) is not self._function:
            return self._captured(declared, use)
        if identity in self._variables:
            variable = self._variables[identity]
            type_ = variable.type.target if isinstance(variable.type, Reference) else variable.type
            return t.Name(type_, use["_line"], variable)
        kinds = {child.get("kind") for child in children(declared)}
        if "CUDASharedAttr" in kinds:
            self._share(declared)
            return self.variable(declared, use)
        text = declared.get("type", {}).get("qualType", "")
        constant = not kinds.isdisjoint({"CUDAConstantAttr", "CUDADeviceAttr"}) or declared.get("constexpr")
        constant = constant or text.startswith("const ")
        name = declared.get("name", "")
        if not constant:
            raise self.refuse(f"{name}: variables that outlive a thread are not supported: pass a pointer", use)
        if not self._has_value(declared):
            return self._set_by_host(declared, use)
        return self._constant(declared, use)

    def _has_value(self, declared: Node) -> bool:
        """Whether a variable has an initialiser; a constructor that the compiler wrote is none."""
        if "init" not in declared and not declared.get("hasInit"):
            return False
        initialiser = self._initialiser(declared)
        return initialiser["kind"] != "CXXConstructExpr" or bool(children(initialiser))

    def _set_by_host(self, declared: Node, use: Node) -> t.Expression:
        """Return what a ``__constant__`` variable without a value is: the target of a hidden parameter."""
        with self._within(declared):
            type_ = self.types.of(declared, self.scope)
        name = declared.get("name", "")
        if has_pointer(type_) or (isinstance(type_, Array) and type_.count is None):
            raise self.refuse(
                f"{name}: __constant__ data that the host sets has a size and no pointers in it", declared
            )
        assert self._function is not None
        self._host_set[declared["id"]] = declared
        hidden = self._function.hidden
        if declared["id"] not in hidden:
            pointer = Pointer(type_, const=True)
            hidden[declared["id"]] = t.Variable(name, self._fresh("v", name), pointer, "parameter", declared["_line"])
        variable = hidden[declared["id"]]
        self._note_device(declared, variable)
        return t.Unary(type_, use["_line"], "*", t.Name(variable.type, use["_line"], variable))

    def _hand_down_constants(self, functions: Sequence[t.Function]) -> None:
        """Give each function the hidden parameters of those that it calls, and each call their arguments."""
        declared = sorted(self._host_set.items(), key=lambda item: (item[1]["_line"], item[1]["_column"]))
        self._host_set = dict(declared)
        calls = {
            function: [node for node in t.walk(body_of(function)) if isinstance(node, t.Call)] for function in functions
        }
        changed = bool(self._host_set)
        while changed:
            changed = False
            for function in functions:
                for call in calls[function]:
                    for key, variable in call.function.hidden.items() if isinstance(call.function, t.Function) else ():
                        if key not in function.hidden:
                            own = replace(variable, cpp=self._fresh("v", variable.name))
                            self._device |= {own} if variable in self._device else set()
                            function.hidden[key], changed = own, True
        for function in functions:
            function.parameters += [function.hidden[key] for key in self._host_set if key in function.hidden]
            for call in calls[function]:
                if isinstance(call.function, t.Function):
                    handed = [function.hidden[key] for key in self._host_set if key in call.function.hidden]
                    call.arguments += [t.Name(variable.type, call.line, variable) for variable in handed]

    def _constant(self, declared: Node, use: Node) -> t.Expression:
        with self._within(declared):
            value = self.expression(self._initialiser(declared))
            type_ = self.types.of(declared, self.scope)
        simple = not isinstance(type_, Array | Record)  # such a value is written out where it is used
        if isinstance(type_, Reference | Pointer) or not _is_constant(value, self._constexpr if simple else set()):
            text = f"{declared.get('name')}: a constant outside of functions needs a value known to the compiler"
            raise self.refuse(text, declared)
        name = declared.get("name", "")
        variable = t.Variable(name, self._fresh("g", name), type_, "constant", declared["_line"])
        self._note_device(declared, variable)
        if not isinstance(type_, Array | Record) and variable not in self._device:
            return value
        self._variables[declared["id"]] = variable
        table = value if isinstance(value, t.Initialise) else t.Initialise(type_, value.line, [value])
        self._globals[declared["id"]] = t.Global(variable, table)
        return t.Name(type_, use["_line"], variable)

    def _note_device(self, declared: Node, variable: t.Variable) -> None:
        """Remember a ``__device__`` variable that is not const: whether it is only read is seen at the end."""
        kinds = {child.get("kind") for child in children(declared)}
        const = declared.get("constexpr") or declared.get("type", {}).get("qualType", "").startswith("const ")
        if "CUDADeviceAttr" in kinds and "CUDAConstantAttr" not in kinds and not const:
            self._device.add(variable)

    def _captured(self, declared: Node, use: Node) -> t.Expression:
        """Return a variable of the function around: what a lambda has captured, or the value of a constant."""
        record = self._node.get("_record") or {}
        variable = self.self_variable
        for place, capture in enumerate(record.get("_captures", ())):
            if captured_variable(capture) == declared["id"] and variable is not None:
                closure = self.types.record(record)
                field, line = closure.fields[place], use["_line"]
                member = t.Member(field.type, line, t.Name(closure, line, variable), field, closure)
                if field.by_reference and isinstance(field.type, Pointer):
                    return t.Unary(field.type.target, line, "*", member)
                return member
        if declared.get("constexpr") or declared.get("type", {}).get("qualType", "").startswith("const "):
            return self._constant(declared, use)
        name = declared.get("name", "")
        raise self.refuse(f"{name}: variables of the function around are not supported here", use)

    def _initialiser(self, declared: Node) -> Node:
        for child in children(declared):
            kind = child.get("kind", "")
            if not kind.endswith(("Attr", "TemplateArgument")):
                return child
        raise self.refuse(f"{declared.get('name')} has no value", declared)

    def _share(self, declared: Node) -> None:
        name, type_ = declared.get("name", ""), self.types.of(declared, self.scope)
        if any(child.get("kind") == "CXXConstructExpr" and children(child) for child in children(declared)):
            raise self.refuse(f"{name}: shared objects with constructors are not supported", declared)
        dynamic = isinstance(type_, Array) and type_.count is None
        if has_pointer(type_) and dynamic:
            raise self.refuse(f"{name}: pointers in dynamic shared memory are not supported", declared)
        if declared.get("storageClass") == "extern" and not dynamic:
            raise self.refuse(f"{name}: extern shared memory is an array without a length", declared)
        storage = "dynamic" if dynamic else "shared"
        variable = t.Variable(name, self._fresh("s", name), type_, storage, declared["_line"])
        self._variables[declared["id"]] = variable
        if dynamic:
            self._dynamic.append(variable)
        else:
            if size_of(type_) > SHARED_BYTES_MAX:
                limit = f"at most {SHARED_BYTES_MAX} bytes of shared memory are supported"
                raise self.refuse(f"{name} has {size_of(type_)} bytes: {limit}", declared)
            self._shared.append(variable)

    def declare_local(self, node: Node) -> t.Statement | None:
        """Lower a variable's declaration within a function; None for what is not on the stack."""
        kinds = {child.get("kind") for child in children(node)}
        if "CUDASharedAttr" in kinds:
            self._share(node)
            return None
        if node.get("storageClass") in ("static", "extern"):
            return None  # a constant, or refused where it is used
        variable = self._declare(node, "local", self._function)
        value = None
        if "init" in node:
            value = self.expression(self._initialiser(node))
            if isinstance(variable.type, Reference) and isinstance(value, t.Temporary):
                variable.type, value = value.type, value.operand  # the temporary lives as long as its reference
            if isinstance(variable.type, Array) and isinstance(value.type, Pointer):
                variable.type = value.type  # so clang prints a deduced ``auto*`` that points to an array
            if isinstance(value, t.Initialise) and not value.items and _sets_nothing(self._initialiser(node)):
                value = None
        return t.Declare(node["_line"], variable, value)

    def _declare(self, node: Node, storage: str, owner: t.Function | None) -> t.Variable:
        name, type_ = node.get("name", ""), self.types.of(node, self.scope)
        if isinstance(type_, Array) and type_.count is None:
            raise self.refuse(f"{name}: an array needs a length", node)
        if not isinstance(type_, Reference) and size_of(type_) > LOCAL_BYTES_MAX:
            text = (
                f"{name} takes {size_of(type_)} bytes of each thread's stack, at most {LOCAL_BYTES_MAX} are supported"
            )
            raise self.refuse(text, node)
        variable = t.Variable(name, self._fresh("v", name), type_, storage, node["_line"])
        self._variables[node["id"]] = variable
        self._owners[node["id"]] = owner
        return variable

    # ---- helpers

    def _fresh(self, prefix: str, name: str) -> str:
        self._count += 1
        plain = "".join(c for c in name if c.isascii() and (c.isalnum() or c == "_"))[:40]
        return f"{prefix}{self._count}_{plain}"

    @contextmanager
    def _within(self, node: Node) -> Iterator[Scope]:
        """Look types up from inside this node."""
        outer, self.scope = self.scope, node.get("_scope") or self._scope_around(node)
        try:
            yield self.scope
        finally:
            self.scope = outer

    def _scope_around(self, node: Node) -> Scope:
        return node.get("_outer") or self.scope


def _assign_all(place: t.Expression, value: t.Expression) -> Iterator[t.Expression]:
    """Yield the assignments that initialise a place; arrays element by element, but for what is left out."""
    if not isinstance(place.type, Array):
        yield t.Assign(place.type, value.line, "", place, value, place.type)
        return
    if not isinstance(value, t.Initialise):
        raise Unsupported("initialise this array in the constructor's body", value.line, 1)
    for number, item in enumerate(value.items):
        pointer = t.Cast(Pointer(place.type.element), value.line, "decay", place)
        index = t.Literal(I32, value.line, str(number))
        yield from _assign_all(t.Index(place.type.element, value.line, pointer, index), item)


def _is_whole(type_: Type, value: t.Expression) -> bool:
    """Whether an initialiser says what each element of an array is; what it leaves out is zero."""
    if not isinstance(type_, Array) or not isinstance(value, t.Initialise):
        return True
    return len(value.items) == type_.count and all(_is_whole(type_.element, item) for item in value.items)


def _sets_nothing(initialiser: Node) -> bool:
    """Whether an object is made by a constructor that the compiler supplies and that does nothing."""
    return initialiser.get("kind") == "CXXConstructExpr" and not initialiser.get("zeroing")


def _members(node: Node, kind: str) -> Iterator[Node]:
    """Yield the members of a record of that kind, the instances of templates among them."""
    for child in children(node):
        if child.get("kind") == "FunctionTemplateDecl":
            yield from _members(child, kind)
        elif child.get("kind") == kind and not child.get("_pattern"):
            yield child


def _find(node: Node, kind: str) -> Node | None:
    """Return the first node of that kind below a node."""
    for child in children(node):
        found = child if child.get("kind") == kind else _find(child, kind)
        if found is not None:
            return found
    return None


def _before_parameters(text: str) -> str:
    """Return the result in the text of a function's type: of ``const Vec<int> &(float)``, ``const Vec<int> &``."""
    depth = 0
    for position, c in enumerate(text):
        depth += (c == "<") - (c == ">")
        if c == "(" and not depth and not text.startswith(("(unnamed", "(anonymous", "(lambda"), position):
            return text[:position]
    return text


def _is_constant(value: t.Expression, functions: set[t.Function]) -> bool:
    """Whether a value is known to the compiler; it may call these functions, which are ``constexpr``."""
    allowed = t.Literal | t.Cast | t.Unary | t.Binary | t.Conditional | t.Initialise | t.Name | t.Index | t.Member
    for node in t.walk(value):
        if not isinstance(node, allowed) and not (isinstance(node, t.Call) and node.function in functions):
            return False
        if isinstance(node, t.Name) and node.variable.storage != "constant":
            return False
    return True
