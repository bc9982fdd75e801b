"""Statements: from clang's nodes to the typed tree."""

from typing import TYPE_CHECKING

from depin_node.compute.translate import tree as t
from depin_node.compute.translate.errors import Unsupported
from depin_node.compute.translate.frontend import Node
from depin_node.compute.translate.index import Scope, children

if TYPE_CHECKING:
    from depin_node.compute.translate.lower import Lowering

_REFUSED = {
    "GotoStmt": "goto is not supported",
    "IndirectGotoStmt": "goto is not supported",
    "LabelStmt": "goto is not supported",
    "GCCAsmStmt": "inline assembly is not supported: write it in CUDA C",
    "MSAsmStmt": "inline assembly is not supported: write it in CUDA C",
    "CXXTryStmt": "exceptions are not supported",
}
_IGNORED = frozenset(
    {
        *("TypedefDecl", "TypeAliasDecl", "CXXRecordDecl", "EnumDecl", "StaticAssertDecl", "UsingDecl"),
        *("UsingDirectiveDecl", "EmptyDecl", "NamespaceAliasDecl", "UsingEnumDecl", "ClassTemplateDecl"),
        *("UsingShadowDecl", "PragmaCommentDecl"),
    }
)


class Statements:
    """Lowers statements; mixed into ``Lowering``."""

    lowering: "Lowering"
    scope: Scope

    def statement(self, node: Node) -> list[t.Statement]:
        """Lower one statement; declarations and labels give several.

        Raises:
            Unsupported: this, or something in it, is not supported.
        """
        kind = node.get("kind", "")
        method = getattr(self, "_" + kind, None)
        if not node:
            return []
        if kind.endswith(("Stmt", "Decl")):
            if method is None:
                text = _REFUSED.get(kind) or f"{kind} is not supported"
                raise Unsupported(text, node["_line"], node["_column"])
            with self.lowering._within(node):
                result: list[t.Statement] = method(node)
            return result
        value = self.lowering.expression(node)
        return [t.Evaluate(value.line, value)]

    def block(self, node: Node) -> t.Block:
        """Lower a statement into a block."""
        body = self.statement(node) if node else []
        if len(body) == 1 and isinstance(body[0], t.Block):
            return body[0]
        return t.Block(node.get("_line", 0), body)

    def _CompoundStmt(self, node: Node) -> list[t.Statement]:  # noqa: N802 - clang's names
        return [t.Block(node["_line"], [s for child in children(node) for s in self.statement(child)])]

    def _DeclStmt(self, node: Node) -> list[t.Statement]:  # noqa: N802
        result = []
        for child in children(node):
            kind = child.get("kind", "")
            if kind == "VarDecl":
                declared = self.lowering.declare_local(child)
                if declared is not None:
                    result.append(declared)
            elif kind not in _IGNORED:
                what = {"DecompositionDecl": "structured bindings are"}.get(kind, f"{kind} is")
                raise Unsupported(f"{what} not supported", child["_line"], child["_column"])
        return result

    def _NullStmt(self, node: Node) -> list[t.Statement]:  # noqa: N802
        return []

    def _AttributedStmt(self, node: Node) -> list[t.Statement]:  # noqa: N802
        return self.statement(children(node)[-1])  # #pragma unroll and its like are left to the optimiser

    def _IfStmt(self, node: Node) -> list[t.Statement]:  # noqa: N802
        nodes, start = children(node), []
        if node.get("hasInit"):
            start += self.statement(nodes.pop(0))
        if node.get("hasVar"):
            start += self.statement(nodes.pop(0))
        condition = self.lowering.expression(nodes[0])
        no = self.block(nodes[2]) if len(nodes) > 2 else None
        result: t.Statement = t.If(node["_line"], condition, self.block(nodes[1]), no)
        return [t.Block(node["_line"], [*start, result])] if start else [result]

    def _ForStmt(self, node: Node) -> list[t.Statement]:  # noqa: N802
        start, variable, condition, step, body = children(node)
        if variable:
            raise Unsupported("a variable in a loop's condition is not supported", node["_line"], node["_column"])
        before = self.statement(start)
        test = self.lowering.expression(condition) if condition else None
        advance = self.lowering.expression(step) if step else None
        loop = t.Loop(node["_line"], test, advance, self.block(body))
        return [t.Block(node["_line"], [*before, loop])] if before else [loop]

    def _CXXForRangeStmt(self, node: Node) -> list[t.Statement]:  # noqa: N802
        start, over, begin, end, condition, step, variable, body = children(node)
        before = [s for part in (start, over, begin, end) for s in self.statement(part)]
        test, advance = self.lowering.expression(condition), self.lowering.expression(step)
        inner = [*self.statement(variable), self.block(body)]
        loop = t.Loop(node["_line"], test, advance, t.Block(node["_line"], inner))
        return [t.Block(node["_line"], [*before, loop])]

    def _WhileStmt(self, node: Node) -> list[t.Statement]:  # noqa: N802
        if node.get("hasVar"):
            raise Unsupported("a variable in a loop's condition is not supported", node["_line"], node["_column"])
        condition, body = children(node)
        return [t.Loop(node["_line"], self.lowering.expression(condition), None, self.block(body))]

    def _DoStmt(self, node: Node) -> list[t.Statement]:  # noqa: N802
        body, condition = children(node)
        return [t.Loop(node["_line"], self.lowering.expression(condition), None, self.block(body), do=True)]

    def _SwitchStmt(self, node: Node) -> list[t.Statement]:  # noqa: N802
        nodes, start = children(node), []
        if node.get("hasInit"):
            start += self.statement(nodes.pop(0))
        if node.get("hasVar"):
            start += self.statement(nodes.pop(0))
        value = self.lowering.expression(nodes[0])
        body = self.block(nodes[1])
        for statement in body.body:
            if isinstance(statement, t.Declare):
                statement.bare = True
        return [t.Block(node["_line"], [*start, t.Switch(node["_line"], value, body)])]

    def _CaseStmt(self, node: Node) -> list[t.Statement]:  # noqa: N802
        if node.get("isGNURange"):
            raise Unsupported("ranges of cases are not supported", node["_line"], node["_column"])
        value, body = children(node)
        constant = value.get("value")
        type_ = self.lowering.type_of(value)
        if constant is None or isinstance(constant, bool):
            raise Unsupported("this case is not supported", node["_line"], node["_column"])
        literal = self.lowering._literal(node, type_, int(constant))
        return [t.Case(node["_line"], literal), *self.statement(body)]

    def _DefaultStmt(self, node: Node) -> list[t.Statement]:  # noqa: N802
        return [t.Case(node["_line"], None), *self.statement(children(node)[-1])]

    def _BreakStmt(self, node: Node) -> list[t.Statement]:  # noqa: N802
        return [t.Jump(node["_line"], "break")]

    def _ContinueStmt(self, node: Node) -> list[t.Statement]:  # noqa: N802
        return [t.Jump(node["_line"], "continue")]

    def _ReturnStmt(self, node: Node) -> list[t.Statement]:  # noqa: N802
        inner = children(node)
        return [t.Return(node["_line"], self.lowering.expression(inner[0]) if inner else None)]
