"""What the files of a package import and hold, read from their source alone."""

import ast
import re
from collections import defaultdict
from pathlib import Path


def sources(package):
    """File relative to the package -> its source."""
    found = sorted(Path(package).rglob("*.py"))
    return {p.relative_to(package).as_posix(): p.read_text() for p in found}


def module_of(relative, root="jaxglmm"):
    """Dotted name of a file."""
    parts = Path(relative).with_suffix("").parts
    return ".".join([root, *(p for p in parts if p != "__init__")])


def edges(files, root="jaxglmm"):
    """(file, file it imports, is the import put off?) for every import of the package.

    Put off: inside a function or under TYPE_CHECKING. ``from a import b`` is an import
    of the module ``a.b`` where there is one, else of ``a``. What Python runs on the
    way, ``a/__init__.py`` for ``a.b``, is no import of the file's own.
    """
    file_of = {module_of(name, root): name for name in files}
    for name, text in files.items():
        for target, late in _imports(ast.parse(text)):
            if target.rsplit(".", 1)[0] in file_of and target not in file_of:
                target = target.rsplit(".", 1)[0]
            found = file_of.get(target)
            if found is not None and found != name:
                yield name, found, late


def _imports(node, late=False):
    """(dotted target, put off?) of all imports below a node."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ImportFrom):
            yield from ((f"{child.module}.{a.name}", late) for a in child.names)
        elif isinstance(child, ast.Import):
            yield from ((a.name, late) for a in child.names)
        else:
            yield from _imports(child, late or _puts_off(child))


def lost_names(files, root="jaxglmm"):
    """(file, "module.name") of every import of a name that its module does not have.

    Imports put off until a question is asked are seen too, which no import of the
    package runs.
    """
    file_of = {module_of(name, root): name for name in files}
    has = {module: _names(ast.parse(files[name])) for module, name in file_of.items()}
    for name, text in files.items():
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.ImportFrom) or node.module not in file_of:
                continue
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                known = has[node.module]
                lazy = "__getattr__" in known
                if alias.name not in known and whole not in file_of and not lazy:
                    yield name, whole


def _names(tree):
    """What the top level of a module binds, below conditions too."""
    found, left = set(), list(tree.body)
    while left:
        node = left.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(a.asname or a.name).split(".")[0] for a in node.names}
        else:
            left += [x for x in ast.iter_child_nodes(node) if isinstance(x, ast.stmt)]
            left += [x for x in ast.iter_child_nodes(node) if _handles(x)]
            found |= {x.id for x in ast.walk(node) if _is_bound(x)}
    return found


def _handles(node):
    return isinstance(node, ast.ExceptHandler)


def _is_bound(node):
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)


def _puts_off(node):
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.unparse(node.test)
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def circles(pairs):
    """Strongly connected sets of more than one file, each sorted."""
    after = defaultdict(set)
    for a, b in pairs:
        after[a].add(b)
        after[b] |= set()
    reach = {start: _reached(after, start) for start in after}
    found = {tuple(sorted(b for b in reach[a] if a in reach[b])) for a in after}
    return sorted(circle for circle in found if len(circle) > 1)


def _reached(after, start):
    """All that can be come to from a file, itself where it is on a circle."""
    seen, todo = set(), list(after[start])
    while todo:
        here = todo.pop()
        if here not in seen:
            seen.add(here)
            todo += after[here]
    return seen


def upward(pairs, row):
    """["file -> file"] whose target stands in the same row's other folder or later."""
    out = set()
    for a, b, late in pairs:
        here, there = (name.removesuffix(".py").split("/")[0] for name in (a, b))
        if late and here != there and row.get(there, -1) >= row.get(here, len(row)):
            out.add(f"{a} -> {b}")
    return sorted(out)


def naming(files, names, inside, but):
    """["file: class"] of files under a folder that import one of these classes."""
    out = set()
    for name, text in files.items():
        if name.startswith(inside) and name not in but:
            for target, _ in _imports(ast.parse(text)):
                if target.rsplit(".", 1)[-1] in names:
                    out.add(f"{name}: {target.rsplit('.', 1)[-1]}")
    return sorted(out)


def below(source, modules, public):
    """Modules that a file imports, or names in a string, and that are not public.

    Of all ``modules``, by their dotted names; what a public one holds itself may be
    taken from it, other modules inside it may not.
    """
    tree = ast.parse(source)
    texts = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)]
    targets = [target for target, _ in _imports(tree)]
    for text in texts:
        if isinstance(text, str):
            targets += re.findall(r"\bjaxglmm(?:\.\w+)+", text)
    found = {_longest(target, modules) for target in targets}
    return sorted(found & set(modules) - set(public))


def _longest(target, modules):
    """The module that a dotted name lies in."""
    while target not in modules and "." in target:
        target = target.rsplit(".", 1)[0]
    return target


def repeated_classes(files):
    """Public class -> files, where there is more than one."""
    where = defaultdict(list)
    for name, text in files.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                where[node.name].append(name)
    return {k: sorted(v) for k, v in sorted(where.items()) if len(v) > 1}


def too_long(files, most):
    """Kind -> name -> lines, of what is longer than ``most[kind]``."""
    out = {"file": {}, "class": {}, "function": {}}
    for name, text in files.items():
        if (lines := len(text.splitlines())) > most["file"]:
            out["file"][name] = lines
        for node in ast.walk(ast.parse(text)):
            kind = _kind(node)
            if kind and (lines := node.end_lineno - node.lineno + 1) > most[kind]:
                out[kind][f"{name}: {node.name}"] = lines
    return out


def _kind(node):
    if isinstance(node, ast.ClassDef):
        return "class"
    is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    return "function" if is_function else None
