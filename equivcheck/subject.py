"""The pair to verify, from objects or import strings, and the problems that its cases make."""

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivcheck.cases import Case, arrange
from equivcheck.errors import UsageError
from equivcheck.gpt import GPT
from equivcheck.problem import Memory, Problem, seeded
from equivcheck.weights import projections_known, qkv, randomise, sequence, tokens, upstream

__all__ = ["KINDS", "Subject", "find_device", "load", "resolve"]

KINDS = ("module", "function", "model", "replacement")

Factory = Callable[..., Any]


def load(spec: str) -> Any:
    """The object behind `"package.module:name"` or `"path/to/file.py:name"`; a UsageError says why there is none."""
    place, _, name = spec.rpartition(":")
    if not place or not name:
        raise UsageError(
            f"{spec!r} is no import string: write 'package.module:name' or 'path/to/file.py:name', with a colon before the name"
        )
    try:
        module = _load_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except UsageError:
        raise
    except BaseException as error:  # whatever a stranger's module raises while it is imported, SystemExit included
        if isinstance(error, KeyboardInterrupt):
            raise
        raise UsageError(f"cannot import {place!r}: {type(error).__name__}: {_line(error)}") from error
    found: Any = module
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            public = sorted(n for n in vars(module) if not n.startswith("_") and callable(getattr(module, n)))
            raise UsageError(
                f"{place!r} has no {name!r}: it has {', '.join(public[:12]) or 'nothing to call'}"
            ) from None
    return found


def _load_file(path: Path) -> ModuleType:
    path = path.expanduser().resolve()
    if not path.is_file():
        raise UsageError(f"there is no file {str(path)!r}: give the path of a Python file before the colon")
    name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    known = sys.modules.get(name)
    if known is not None:
        return known
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs: dataclasses and pickles look their module up there
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.append(folder)  # so that the file's own neighbours can be imported
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or "no message"


def find_device(device: str) -> torch.device:
    """The device to run on: `auto` is the current CUDA device where there is one; a UsageError where the device is missing."""
    if device == "auto":
        return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    try:
        found = torch.device(device)
    except RuntimeError:
        found = torch.device("meta")
    if found.type not in ("cpu", "cuda"):
        raise UsageError(f"unknown device {device!r}: allowed are auto, cpu, cuda and cuda:N")
    if found.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count == 0:
            raise UsageError(
                f"device {device!r} was asked for and torch {torch.__version__} sees no CUDA GPU: use --device cpu"
            )
        index = torch.cuda.current_device() if found.index is None else found.index
        if index >= count:
            raise UsageError(
                f"device {device!r} was asked for and torch sees {count} CUDA GPU(s): use cuda:0 to cuda:{count - 1}"
            )
        found = torch.device("cuda", index)
    return found


class FunctionModule(nn.Module):
    """A function of q, k, v as a module without parameters, so that every kind runs in the same way."""

    def __init__(self, function: Factory, case: Case) -> None:
        super().__init__()
        self.function, self.case = function, case

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Any:
        rate = self.case.attn_pdrop if self.training else 0.0
        scale = self.case.head_size**-0.5 if self.case.scale is None else self.case.scale
        return self.function(q, k, v, is_causal=self.case.is_causal, dropout_p=rate, scale=scale)

    def __deepcopy__(self, memo: Any) -> "FunctionModule":
        return FunctionModule(self.function, self.case).train(self.training)


@dataclass(frozen=True)
class Subject:
    """A pair and its kind, ready to make problems of cases on a device."""

    reference: Factory
    candidate: Factory
    kind: str
    device: torch.device
    reference_name: str
    candidate_name: str
    memory: Memory = field(default_factory=Memory, compare=False, repr=False)

    def with_candidate(self, candidate: Factory, name: str) -> "Subject":
        """The same reference with another candidate of the same kind (a `replacement` becomes the model it makes)."""
        kind = "model" if self.kind == "replacement" else self.kind
        return Subject(self.reference, candidate, kind, self.device, self.reference_name, name, self.memory)

    def within_gpt(self) -> "Subject":
        """The pair of attentions as a pair of GPTs that differ in nothing else."""
        return Subject(
            lambda config: GPT(config, attention=self.reference),
            lambda config: GPT(config, attention=self.candidate),
            "model",
            self.device,
            self.reference_name,
            self.candidate_name,
            self.memory,
        )

    @cached_property
    def sharpened_by_name(self) -> bool:
        """Whether the projections of queries and keys have names by which their weights can be sharpened."""
        if self.kind == "function":
            return False
        with seeded(0, torch.device("cpu")):
            names = [name for name, _ in self.reference(_SAMPLE.config()).named_parameters()]
        return projections_known(names)

    def build_reference(self, case: Case) -> nn.Module:
        """The reference with the case's random weights, dtype, device and mode."""
        with seeded(case.seed, self.device):
            if self.kind == "function":
                return FunctionModule(self.reference, case).train(case.training)
            module: nn.Module = self.reference(case.config())
        # weights are set in float64 and rounded once, whatever dtype the factory made them in
        module = module.to(device="cpu", dtype=torch.float64)
        randomise(module, case)
        return module.to(device=self.device, dtype=case.torch_dtype).train(case.training)

    def build_candidate(self, case: Case, reference: nn.Module) -> nn.Module:
        """The candidate with the weights of `reference`; raises what a user would see raised."""
        with seeded(case.seed + 1, self.device):
            if self.kind == "function":
                return FunctionModule(self.candidate, case).train(case.training)
            if self.kind == "replacement":
                replaced = self.candidate(reference)
                if not isinstance(replaced, nn.Module):
                    raise TypeError(f"the replacement returned {type(replaced).__name__} instead of the model")
                return replaced
            module: nn.Module = self.candidate(case.config())
            module = module.to(device=self.device, dtype=case.torch_dtype)
            module.load_state_dict(reference.state_dict(), strict=True)
            return module.train(case.training)

    def problem(self, case: Case) -> Problem:
        """The case made real; the candidate is only built when a check asks for it."""
        inputs: tuple[Tensor, ...]
        names: tuple[str, ...]
        if self.kind == "function":
            inputs, names = tuple(arrange(x, case.layout) for x in qkv(case)), ("q", "k", "v")
            shapes = {"output": inputs[2].shape}
        elif self.kind == "module":
            inputs = (arrange(sequence(case, sharpen=not self.sharpened_by_name), case.layout),)
            names = ("x",)
            shapes = {"output": inputs[0].shape}
        else:
            inputs, names = tokens(case), ()
            shapes = {"logits": torch.Size((case.batch_size, case.seq_len, case.vocab_size))}
        inputs = tuple(_to(x, self.device) for x in inputs)
        flowing = {name: _to(upstream(case, name, shape), self.device) for name, shape in shapes.items()}
        if self.kind in ("model", "replacement"):
            # a mean over B*T tokens gives gradients that half precision cannot hold: scaled as a loss scaler would
            scale = float(case.batch_size * case.seq_len)
            flowing = {"loss": torch.tensor(scale, dtype=case.torch_dtype, device=self.device)}
        return Problem(
            case=case,
            device=self.device,
            make_reference=lambda: self.build_reference(case),
            make_candidate=lambda reference: self.build_candidate(case, reference),
            inputs=inputs,
            names=names,
            outputs=_model_outputs if self.kind in ("model", "replacement") else _tensor_output,
            upstream=flowing,
            memory=self.memory,
            # a replacement's original is a model's; an attention's is not that of the GPT around it
            memory_key=("model" if self.kind == "replacement" else self.kind, case),
        )


def _to(x: Tensor, device: torch.device) -> Tensor:
    """Move a tensor and keep its strides, overlapping ones too."""
    if device.type == "cpu":
        return x
    base = x if x._base is None else x._base
    return base.to(device).as_strided(x.shape, x.stride(), x.storage_offset()) if base.is_contiguous() else x.to(device)


def _tensor_output(module: nn.Module, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
    y = module(*inputs)
    y = y[0] if isinstance(y, tuple | list) and y else y
    if not isinstance(y, Tensor):
        raise TypeError(f"the forward pass returned {type(y).__name__} instead of a tensor")
    return {"output": y}


def _model_outputs(module: nn.Module, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
    idx, targets = inputs
    takes_targets = "targets" in inspect.signature(module.forward).parameters
    found = module(idx, targets) if takes_targets else module(idx)
    logits, loss = found if isinstance(found, tuple | list) and len(found) == 2 else (found, None)
    if isinstance(logits, tuple | list):
        logits = logits[0]
    if not isinstance(logits, Tensor):
        raise TypeError(f"the forward pass returned {type(logits).__name__} instead of logits, or (logits, loss)")
    if loss is None:
        loss = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1))
    return {"logits": logits, "loss": loss}


def name_of(given: Any) -> str:
    """How a person would write the object on the command line: its import string where it has one."""
    if isinstance(given, str):
        return given
    module, name = getattr(given, "__module__", None), getattr(given, "__qualname__", None)
    return f"{module}:{name}" if module and name and "<" not in name else repr(given)


def resolve(reference: Any, candidate: Any, *, kind: str, device: str) -> Subject:
    """Load both, find the kind where it is `auto`, and the device; a UsageError where the pair fits no kind."""
    if kind not in ("auto", *KINDS):
        raise UsageError(f"unknown kind {kind!r}: allowed are auto, {', '.join(KINDS)}")
    where = find_device(device)
    names = name_of(reference), name_of(candidate)
    pair = []
    for given, name in zip((reference, candidate), names, strict=True):
        found = load(given) if isinstance(given, str) else given
        if not callable(found):
            raise UsageError(
                f"{name} is {type(found).__name__}, which cannot be called: give a class, a factory or a function"
            )
        pair.append(found)
    subject = Subject(pair[0], pair[1], kind, where, *names)
    found_kind = _find_kind(subject)
    if kind not in ("auto", found_kind) and not {kind, found_kind} <= {"model", "replacement"}:
        raise UsageError(
            f"kind {kind!r} was asked for, and {names[0]} looks like a {found_kind}: leave --kind out, or give the right one"
        )
    return Subject(pair[0], pair[1], found_kind if kind == "auto" else kind, where, *names)


_SAMPLE = Case(batch_size=2, seq_len=3, n_head=2, head_size=4, block_size=8, n_layer=1, vocab_size=11)


def _find_kind(subject: Subject) -> str:
    parameters = _positional(subject.reference)
    if [name[:1] for name in parameters[:3]] == ["q", "k", "v"] and not inspect.isclass(subject.reference):
        missing = [n for n in ("is_causal", "dropout_p", "scale") if not _accepts(subject.reference, n)]
        if missing:
            raise UsageError(
                f"{subject.reference_name} takes q, k, v and not {', '.join(missing)}: "
                "a function is f(q, k, v, *, is_causal, dropout_p, scale)"
            )
        return "function"
    fits = (
        "a factory takes a config and returns an nn.Module of x (B, T, C) or of token ids (B, T), "
        "a function takes q, k, v; see the kinds in the README"
    )
    try:
        with seeded(0, subject.device):
            module = subject.reference(_SAMPLE.config())
    except Exception as error:
        raise UsageError(
            f"{subject.reference_name} fits no kind: called with a config it raised {type(error).__name__}: {_line(error)}; {fits}"
        ) from error
    if not isinstance(module, nn.Module):
        raise UsageError(
            f"{subject.reference_name} fits no kind: called with a config it returned {type(module).__name__}; {fits}"
        )
    module = module.eval()
    x = torch.linspace(-2, 2, 6 * _SAMPLE.n_embd).view(2, 3, -1)
    errors = []
    for kind, value in (("module", x), ("model", torch.zeros(2, 3, dtype=torch.long))):
        try:
            with seeded(0, subject.device), torch.no_grad():
                y = module.to("cpu")(value)
        except Exception as error:
            errors.append(f"on {kind} input it raised {type(error).__name__}: {_line(error)}")
            continue
        y = y[0] if isinstance(y, tuple | list) and y else y
        if isinstance(y, Tensor) and (y.dim() == 3 if kind == "model" else y.shape == x.shape):
            return "replacement" if kind == "model" and _replaces(subject.candidate) else kind
        errors.append(f"on {kind} input it returned {tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__}")
    raise UsageError(f"{subject.reference_name} fits no kind: {'; '.join(errors)}; {fits}")


def _positional(function: Factory) -> list[str]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def _accepts(function: Factory, name: str) -> bool:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return True
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _replaces(candidate: Factory) -> bool:
    """Whether the candidate takes a model rather than a config: by its parameter's name or annotation, else by trying."""
    names = _positional(candidate)
    if inspect.isclass(candidate) and issubclass(candidate, nn.Module):
        return False
    if names and names[0] in ("config", "cfg", "conf", "args"):
        return False
    if names and names[0] in ("model", "module", "net", "gpt", "network"):
        return True
    try:
        with seeded(0, torch.device("cpu")):
            made: Any = candidate(_SAMPLE.config())  # type: ignore[call-arg]  # narrowed to object by the test above
            return not isinstance(made, nn.Module)
    except Exception:
        return True
