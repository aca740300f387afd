"""A case as a script of a few dozen lines that has torch and the two sides alone, for a report of a defect."""

import io
import os
import textwrap
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from equivcheck.engine.script_facts import Call, Drawn, Facts, refusal
from equivcheck.pairs.loading import line_of

__all__ = ["MOST_LINES", "script", "trial"]

MOST_LINES = 60
_MOST_COLUMNS = 110
_SIZES = {
    "element": ("the error of one element", "error[{index}].abs()"),
    "row": ("the norm of the error of one row", "torch.linalg.vector_norm(error[{row}])"),
    "tensor": ("the norm of the whole error", "torch.linalg.vector_norm(error)"),
}


def script(facts: Facts, spot: Mapping[str, Any], folder: str) -> str:
    """The source of the script.

    Args:
        facts: The facts of the case.
        spot: The difference: its `tensor`, `norm`, `index`, `row` and `allowed`.
        folder: The folder from which modules and paths are imported.

    Raises:
        UsageError: The difference is none of values, or the script would be too long.
    """
    if not spot.get("norm") or not (spot["tensor"] == "output" or spot["tensor"].startswith("grad ")):
        raise refusal("it shows no difference of an output or a gradient")
    c, dtype = facts.case, f"torch.{facts.case.dtype}"
    what, size = _SIZES[spot["norm"]]
    size = size.format(index=_index(spot["index"]), row=_index(spot["row"]))
    backward = spot["tensor"] != "output"
    lines = [
        f'"""Case {c.id}:',
        f"{facts.sides[1]}",
        f"gives another {spot['tensor']} than {facts.sides[0]} in float64.",
        'Exit status 1 and "differs", or 0 and "agrees"; it needs torch and the two sides alone."""',
        "import copy, hashlib, importlib, importlib.util, operator, pathlib, sys, types",
        "import torch",
        "",
        f"sys.path.insert(0, {folder!r})",
        f"SEED, DTYPE, DEVICE = {c.seed}, {dtype}, {facts.device!r}",
        f"TENSOR, ALLOWED = {spot['tensor']!r}, {spot['allowed']!r}  # of {what}: as much as rounding explains",
        "",
        "def draw(purpose, shape, factor, shift=0.0):",
        "    digest = hashlib.sha256(f'{SEED}:{purpose}'.encode()).digest()",
        "    source = torch.Generator().manual_seed(int.from_bytes(digest[:7], 'big'))",
        "    return torch.randn(shape, generator=source, dtype=torch.float64) * factor + shift",
        "",
        "def load(place, name):",
        "    if not place.endswith('.py'):",
        "        return operator.attrgetter(name)(importlib.import_module(place))",
        "    sys.path.insert(1, str(pathlib.Path(place).parent))",
        "    spec = importlib.util.spec_from_file_location(pathlib.Path(place).stem, place)",
        "    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)",
        "    spec.loader.exec_module(module)",
        "    return operator.attrgetter(name)(module)",
        "",
        *(_functions(facts, folder) if facts.function else _modules(facts, folder)),
        f"inputs = [{', '.join(f'{_drawn(x)}.to(DEVICE, DTYPE)' for x in facts.inputs)}]",
        *([f"upstream = {_drawn(facts.upstream)}.to(DEVICE, DTYPE)"] if backward else []),
        "",
        "def result(call, parameters, dtype):",
        "    leaves = [x.detach().to(dtype, copy=True).requires_grad_() for x in inputs]",
        f"    with torch.set_grad_enabled({backward}):",
        "        y = call(*leaves)",
        "    y = y[0] if isinstance(y, (tuple, list)) else getattr(y, 'last_hidden_state', y)",
        *_result(facts, backward),
        "",
        "given = result(*candidate(DTYPE), DTYPE)",
        "truth = result(*original(torch.float64), torch.float64)",
        "error = given.double() - truth",
        f"size = float({size})",
        "print(f'{TENSOR}: greatest error {error.abs().max():.3g}; " + what + " {size:.3g}, allowed {ALLOWED:.3g}')",
        "print('agrees' if size <= ALLOWED else 'differs')  # a size that is no number differs",
        "sys.exit(not size <= ALLOWED)",
    ]
    if len(lines) > MOST_LINES:
        raise refusal(f"it would take {len(lines)} lines, and {MOST_LINES} are allowed")
    return "\n".join(lines) + "\n"


def trial(source: str) -> str:
    """`differs` or `agrees`, as the script says when it is run here, or its exception in one line."""
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            exec(compile(source, "script", "exec"), {"__name__": "__main__"})
    except SystemExit:
        return next(reversed(printed.getvalue().splitlines()), "it prints nothing")
    except Exception as error:
        return f"it raises {type(error).__name__}: {line_of(error)[:200]}"
    return "it does not come to its end"


def _modules(facts: Facts, folder: str) -> list[str]:
    """Both sides as modules with the same weights."""
    config = ", ".join(f"{name}={value!r}" for name, value in facts.config.items())
    pairs = ", ".join(f"{name!r}: ({w.factor!r}, {w.shift!r})" for name, w in facts.weights.items())
    lines = textwrap.wrap(pairs, _MOST_COLUMNS, break_long_words=False, break_on_hyphens=False)
    weights = [f"    {line}" for line in lines]
    mode = ".train()" if facts.case.training else ".eval()"
    built = [
        f"load({_place(side, folder)})({_arguments(call)})" for side, call in zip(facts.sides, facts.calls, strict=True)
    ]
    forwards = ["lambda x: module(x, x, x)" if three else "module" for three in facts.three]
    return [
        *([f"config = types.SimpleNamespace({config})"] if config else []),
        "WEIGHTS = {  # of each parameter: the factor of its random numbers, and a shift",
        *weights,
        "}",
        f"torch.manual_seed(SEED); reference = {built[0]}.to(DTYPE){mode}",
        "for name, parameter in reference.named_parameters():",
        "    parameter.data.copy_(draw(name, parameter.shape, *WEIGHTS[name]))",
        f"fast = {built[1]}.to(DTYPE){mode}",
        "fast.load_state_dict(reference.state_dict(), strict=False)",
        "def original(dtype, source=reference):",
        "    module = copy.deepcopy(source).to(DEVICE, dtype)",
        f"    return {forwards[0]}, dict(module.named_parameters())",
        "def candidate(dtype):",
        "    module = fast.to(DEVICE, dtype)",
        f"    return {forwards[1]}, dict(module.named_parameters())",
    ]


def _functions(facts: Facts, folder: str) -> list[str]:
    """Both sides as functions with the options of the case."""
    lines = []
    for name, side, call in zip(("original", "candidate"), facts.sides, facts.calls, strict=True):
        options = _arguments(call)
        given = "*(x.transpose(1, 2) for x in qkv)" if facts.heads_last else "*qkv"
        lines += [f"{name}_function = load({_place(side, folder)})"]
        lines += [
            f"def {name}(dtype):",
            f"    return lambda *qkv: {name}_function({given}{options and ', '}{options}), {{}}",
        ]
    return lines


def _result(facts: Facts, backward: bool) -> list[str]:
    turned = ["    y = y.transpose(1, 2)"] if facts.heads_last else []
    if not backward:
        return [*turned, "    return y.detach()"]
    names = [x.purpose for x in facts.inputs]
    return [
        *turned,
        "    y.backward(upstream.to(dtype))",
        f"    return (dict(zip({names!r}, leaves)) | parameters)[TENSOR.removeprefix('grad ')].grad",
    ]


def _arguments(call: Call) -> str:
    return ", ".join((*call.positional, *(f"{name}={value}" for name, value in call.named.items())))


def _place(side: str, folder: str) -> str:
    place, _, name = side.rpartition(":")
    if place.endswith(".py"):
        place = str(Path(folder, os.path.expanduser(place)))
    return f"{place!r}, {name!r}"


def _drawn(x: Drawn) -> str:
    shift = f", {x.shift!r}" if x.shift else ""
    if len(x.shape) == 4:
        flat = (x.shape[0] * x.shape[1], *x.shape[2:])
        return f"draw({x.purpose!r}, {flat}, {x.factor!r}{shift}).view{x.shape}"
    return f"draw({x.purpose!r}, {x.shape}, {x.factor!r}{shift})"


def _index(index: Any) -> str:
    return ", ".join(map(str, index)) or "()"
