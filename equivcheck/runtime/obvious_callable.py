"""The one callable of a file that is meant, if its source leaves no doubt; the file is not imported."""

import ast
from pathlib import Path

from equivcheck.errors import UsageError

__all__ = ["obvious_callable"]

_MOST_NAMES = 12


def obvious_callable(file: Path, like: str = "") -> str:
    """The name of the callable that a file is about.

    It is the one name in `__all__`, else the one public class or function, else the one named like the original, else
    the one that no other code of the file uses.

    Args:
        file: The file.
        like: The name of the original.

    Raises:
        UsageError: The file cannot be read or parsed, or leaves doubt.
    """
    try:
        tree = ast.parse(file.read_bytes())
    except OSError as error:
        raise UsageError(f"{file}: cannot be read ({error.strerror or error}); give a Python file") from None
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        what = f"line {error.lineno}: {error.msg}" if isinstance(error, SyntaxError) else str(error)
        raise UsageError(f"{file}: no Python source ({what}); correct it") from None
    listed = _listed(tree)
    if len(listed) == 1:
        return listed[0]
    defined = [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    ]
    names = list(dict.fromkeys(name for name in defined if not listed or name in listed))
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    for fitting in (names, [name for name in names if name == like], [name for name in names if name not in used]):
        if len(fitting) == 1:
            return fitting[0]
    if not names:
        raise UsageError(f"{file}: no public class or function is defined there; name it with --name")
    raise UsageError(f"{file}: it is not clear which of {', '.join(names[:_MOST_NAMES])} is meant; give --name")


def _listed(tree: ast.Module) -> list[str]:
    """The names in `__all__`, as far as they are written out."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            value = node.value
            if isinstance(value, ast.List | ast.Tuple):
                return [e.value for e in value.elts if isinstance(e, ast.Constant) and isinstance(e.value, str)]
    return []
