"""Attentions that kill, hang or deceive whoever judges them, as source files: what each does, and what must come of it.

None of them may end with exit status 0, and none may leave a process running.
"""

from dataclasses import dataclass

__all__ = ["ALL", "CANDIDATES", "ON_CUDA", "ORIGINALS", "Hostile"]

_HEAD = """
import atexit, ctypes, os, signal, threading, time
import torch
import torch.nn.functional as F
from torch import nn
"""
_ORIGINAL = f"""{_HEAD}
class Original(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.n_head = config.n_head
        self.query, self.key, self.value = (nn.Linear(config.n_embd, config.n_embd) for _ in range(3))
        self.proj = nn.Linear(config.n_embd, config.n_embd)

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = (f(x).view(B, T, self.n_head, -1).transpose(1, 2) for f in (self.query, self.key, self.value))
        s = (q @ k.transpose(-2, -1)) * q.size(-1) ** -0.5
        s = s.masked_fill(~torch.ones(T, T, dtype=torch.bool, device=x.device).tril(), -torch.inf)
        y = torch.softmax(s, -1) @ v
        return self.proj(y.transpose(1, 2).reshape(B, T, C))
"""
_CANDIDATE = f"""{_HEAD}
from original import Original

class Right(Original):
    def forward(self, x):
        B, T, C = x.shape
        q, k, v = (f(x).view(B, T, self.n_head, -1).transpose(1, 2) for f in (self.query, self.key, self.value))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.proj(y.transpose(1, 2).reshape(B, T, C))

class Wrong(Right):
    def forward(self, x):
        return super().forward(x) * 1.5
"""


@dataclass(frozen=True)
class Hostile:
    """A hostile side of a pair.

    Attributes:
        name: What it does.
        candidate: What its file adds to a right and a wrong attention; the class is `Candidate`.
        original: What the original's file adds; the class stays `Original`.
        statuses: The exit statuses that are right.
        says: What the report or the line on standard error has in it.
        report: Whether a report is left.
        short: Whether it is run with all the other tests.
    """

    name: str
    candidate: str = ""
    original: str = ""
    statuses: tuple[int, ...] = (1,)
    says: str = ""
    report: bool = True
    short: bool = False

    @property
    def files(self) -> dict[str, str]:
        """The two source files by their names."""
        candidate = self.candidate or "class Candidate(Right): pass\n"
        return {"original.py": f"{_ORIGINAL}\n{self.original}", "candidate.py": f"{_CANDIDATE}\n{candidate}"}


def _in_forward(what: str, base: str = "Right", where: str = "x.size(1) > 16") -> str:
    return f"""
class Candidate({base}):
    calls = 0
    def forward(self, x):
        Candidate.calls += 1
        if {where}:
            {what}
        return super().forward(x)
"""


def _in_constructor(what: str) -> str:
    return f"""
class Candidate(Right):
    def __init__(self, config):
        super().__init__(config)
        {what}
"""


def _in_backward(what: str) -> str:
    return f"""
class Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y):
        return y.clone()
    @staticmethod
    def backward(ctx, g):
        if g.size(1) > 16:
            {what}
        return g

class Candidate(Right):
    def forward(self, x):
        return Step.apply(super().forward(x))
"""


_PLAIN_WRONG = "class Candidate(Wrong): pass\n"
_FOREVER = "while True: time.sleep(0.01)"
_SPIN = "while True: pass"
_SEGV = "ctypes.string_at(0)"

CANDIDATES = (
    Hostile(
        "exit at import",
        "os._exit(0)\nCandidate = Right\n",
        statuses=(2,),
        says="cannot import",
        report=False,
        short=True,
    ),
    Hostile("exit in the constructor", _in_constructor("os._exit(0)"), says="status 0", short=True),
    Hostile("exit in forward", _in_forward("os._exit(0)"), says="status 0"),
    Hostile("exit in forward where long", _in_forward("os._exit(0)", where="x.size(1) > 64"), says="-T", short=True),
    Hostile("exit in call 40", _in_forward("os._exit(0)", where="Candidate.calls > 40"), statuses=(1, 2), short=True),
    Hostile("exit in backward", _in_backward("os._exit(0)"), says="status 0"),
    Hostile("exit at exit", f"atexit.register(os._exit, 0)\n{_PLAIN_WRONG}"),
    Hostile(
        "exit at exit of a right one", "atexit.register(os._exit, 0)\nclass Candidate(Right): pass\n", says="atexit"
    ),
    Hostile("hang at import", f"{_SPIN}\nCandidate = Right\n", statuses=(2,), says="cannot import", report=False),
    Hostile("hang in the constructor", _in_constructor(_FOREVER), says="did not answer"),
    Hostile("hang in forward", _in_forward(_SPIN), says="did not answer", short=True),
    Hostile("hang in forward where long", _in_forward(_SPIN, where="x.size(1) > 64"), says="did not answer"),
    Hostile(
        "hang that holds the lock of Python",
        _in_forward("ctypes.PyDLL(None).sleep(100000)", where="x.size(1) > 64"),
        says="did not answer",
    ),
    Hostile("hang in backward", _in_backward(_FOREVER), says="did not answer"),
    Hostile("hang at exit", "atexit.register(time.sleep, 1e6)\nclass Candidate(Right): pass\n", says="does not end"),
    Hostile("segfault in forward", _in_forward(_SEGV), says="SIGSEGV", short=True),
    Hostile("segfault in backward", _in_backward(_SEGV), says="SIGSEGV"),
    Hostile("abort", _in_forward("os.abort()"), says="SIGABRT"),
    Hostile("kills itself", _in_forward("os.kill(os.getpid(), 9)", where="x.size(1) > 64"), says="SIGKILL"),
    Hostile(
        "BaseException of its own",
        f"class Own(BaseException): pass\n{_in_forward('raise Own()')}",
        says="Own was raised",
    ),
    Hostile("KeyboardInterrupt", _in_forward("raise KeyboardInterrupt"), says="KeyboardInterrupt", short=True),
    Hostile("GeneratorExit", _in_forward("raise GeneratorExit"), says="GeneratorExit"),
    Hostile("sys.exit(0)", _in_forward("raise SystemExit(0)"), says="sys.exit(0)"),
    Hostile(
        "a thread that stays",
        _in_forward("threading.Thread(target=time.sleep, args=(1e6,)).start()", where="Candidate.calls == 1"),
        says="does not end",
    ),
    Hostile(
        "more memory than allowed", _in_forward("torch.ones(3 * 2**28)", where="x.size(1) > 64"), says="--worker-memory"
    ),
    Hostile("a fork that returns", _in_forward("os.fork()"), says="second process", short=True),
    Hostile(
        "a child that stays",
        _in_forward("os.fork() or (os.setsid(), os.fork() and os._exit(0), time.sleep(1e6))", base="Wrong"),
    ),
    Hostile("closes all descriptors", _in_forward("os.closerange(3, 256)", where="x.size(1) > 64"), statuses=(1, 2)),
    Hostile(
        "patches the original at import",
        "Original.forward = Wrong.forward = lambda self, x: self.proj(x)\nclass Candidate(Original): pass\n",
        says="original.Original.forward",
        short=True,
    ),
    Hostile(
        "patches the original in forward",
        _in_forward("Original.forward = Right.forward"),
        says="original.Original.forward",
    ),
    Hostile(
        "patches torch.softmax",
        "plain = torch.softmax\ntorch.softmax = lambda x, d: plain(x * 2, d)\nclass Candidate(Original): pass\n",
        says="torch.softmax",
    ),
    Hostile(
        "patches comparison",
        "import equivcheck.numerics.comparison, equivcheck.checks.base.compare_all\n"
        "from equivcheck.numerics.comparison import Comparison\n"
        "equal = lambda name, *_, **__: Comparison(name, (), 0.0)\n"
        f"equivcheck.numerics.comparison.compare = equivcheck.checks.base.compare_all.compare = equal\n{_PLAIN_WRONG}",
        says="what judges was changed",
        short=True,
    ),
    Hostile(
        "patches the verdict",
        f"from equivcheck.report.model import Report\nReport.verdict = property(lambda self: 'equivalent')\n{_PLAIN_WRONG}",
    ),
    Hostile(
        "a tensor whose differences are zero",
        "class Same(torch.Tensor):\n"
        "    def __sub__(self, other): return torch.zeros_like(other)\n"
        "    __rsub__ = __sub__\n"
        "class Candidate(Wrong):\n    def forward(self, x): return super().forward(x).as_subclass(Same)\n",
        says="Same",
    ),
    Hostile("changes the folder", _in_forward("os.chdir('/')"), says="folder"),
)

ORIGINALS = (
    Hostile("original: exit at import", original="os._exit(0)\n", statuses=(2,), says="cannot import", report=False),
    Hostile("original: hang at import", original=f"{_SPIN}\n", statuses=(2,), says="cannot import", report=False),
    *(
        Hostile(
            f"original: {name} in forward",
            original=f"plain = Original.forward\ndef forward(self, x):\n    if type(self) is Original and {where}:\n"
            f"        {what}\n    return plain(self, x)\nOriginal.forward = forward\n",
            statuses=(2,),
            says=says,
            report=report,
            short=short,
        )
        for name, what, where, says, report, short in (
            ("exit", "os._exit(0)", "True", "status 0", False, False),
            ("exit where long", "os._exit(0)", "x.size(1) > 64", "status 0", True, True),
            ("segfault where long", _SEGV, "x.size(1) > 64", "SIGSEGV", True, False),
            ("hang where long", _SPIN, "x.size(1) > 64", "did not answer", True, False),
            ("memory where long", "torch.ones(3 * 2**28)", "x.size(1) > 64", "of memory", True, False),
            ("KeyboardInterrupt", "raise KeyboardInterrupt", "True", "KeyboardInterrupt", False, False),
        )
    ),
    Hostile(
        "original: exit in the constructor",
        original="plain = Original.__init__\ndef init(self, config):\n    plain(self, config)\n"
        "    if type(self) is Original:\n        os._exit(0)\nOriginal.__init__ = init\n",
        statuses=(2,),
        says="status 0",
        report=False,
    ),
)

ALL = (*CANDIDATES, *ORIGINALS)

ON_CUDA = (
    Hostile(
        "an illegal memory access",
        _in_forward("x.new_zeros(4)[torch.full((4,), 10**9, device=x.device)]", where="x.size(1) > 64"),
        says="lost the GPU",
    ),
    Hostile(
        "a kernel that spins for a minute",
        _in_forward("torch.cuda._sleep(10**11), torch.cuda.synchronize()", where="x.size(1) > 64"),
        says="did not answer",
    ),
)
