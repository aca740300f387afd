"""A difference as a script: it needs torch and the two sides alone, differs, and agrees once the candidate is right."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from equivcheck.cases.case import Case
from equivcheck.engine.replay_script import MOST_LINES
from equivcheck.errors import UsageError
from equivcheck.runtime.file_access import watched
from equivcheck.worker.judge import Judge

SLOW = """
import math, torch
from torch import nn

class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.n_head = config.num_heads
        self.qkv, self.out = nn.Linear(config.n_embd, 3 * config.n_embd), nn.Linear(config.n_embd, config.n_embd)

    def heads(self, x):
        B, T, C = x.shape
        return (t.view(B, T, self.n_head, C // self.n_head).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))

    def attend(self, q, k, v):
        return attend(q, k, v, is_causal=True)

    def forward(self, x):
        return self.out(self.attend(*self.heads(x)).transpose(1, 2).reshape(x.shape))

class Sized(Attention):
    def __init__(self, embed_dim, num_heads):
        import types
        super().__init__(types.SimpleNamespace(n_embd=embed_dim, num_heads=num_heads))

def attend(q, k, v, is_causal=False):
    a = q @ k.mT / math.sqrt(q.size(-1))
    if is_causal:
        a = a.masked_fill(torch.ones(q.size(-2), k.size(-2), dtype=torch.bool).triu(1), -math.inf)
    return a.softmax(-1) @ v

def heads_last(q, k, v, causal=False):
    return attend(*(x.transpose(1, 2) for x in (q, k, v)), is_causal=causal).transpose(1, 2)
"""

FAST = """
import slow

class Attention(slow.Attention):
    def attend(self, q, k, v):
        return WRONG(super().attend(q, DETACHED(k), v))

class Sized(slow.Sized):
    def attend(self, q, k, v):
        return WRONG(super().attend(q, k, v))

def attend(q, k, v, is_causal=False):
    return WRONG(slow.attend(q, k, v, is_causal))

def heads_last(q, k, v, causal=False):
    return WRONG(slow.heads_last(q, k, v, causal))

def WRONG(y):
    return FACTOR * y

def DETACHED(k):
    return k
"""

CASE = Case(batch_size=2, seq_len=5, n_head=2, head_size=3, block_size=6, seed=3)


def script(folder: Path, name: str, case: Case, check: str, fast: str, **options: Any) -> str:
    """The script of the difference that a check sees on a case."""
    (folder / "slow.py").write_text(SLOW)
    (folder / "fast.py").write_text(fast)
    with watched() as access:
        judge = Judge(access)
        sides = [f"{folder / file}:{name}" for file in ("slow.py", "fast.py")]
        judge.load(sides[0], sides[1], "auto", "cpu", options)
        judge.plan([check], (), "quick", 0, [case.dtype], ())
        return judge.script(case.id, judge.one(check, case.id)["spot"], str(folder))


def run(folder: Path, source: str) -> tuple[int, str]:
    """The exit status and the last word of a script where there is no equivcheck."""
    file = folder / "script.py"
    file.write_text(source)
    command = f"import runpy, sys; sys.modules['equivcheck'] = None; runpy.run_path({str(file)!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-I", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout.split()[-1]


@pytest.mark.parametrize(
    ("name", "check", "changes"),
    [
        ("Attention", "output", {}),
        ("Attention", "gradients", {"dtype": "bfloat16", "training": True}),
        ("Attention", "output", {"regime": "same_sign_v", "dtype": "float64"}),
        ("Sized", "gradients", {"regime": "near_initial"}),
        ("attend", "output", {}),
        ("attend", "gradients", {"is_causal": False}),
        ("heads_last", "gradients", {"batch_size": 1}),
    ],
)
def test_a_script_differs_and_agrees_once_the_candidate_is_right(
    tmp_path: Path, name: str, check: str, changes: dict[str, Any]
) -> None:
    source = script(tmp_path, name, CASE.but(**changes), check, FAST.replace("FACTOR", "1.5"))
    assert len(source.splitlines()) <= MOST_LINES
    assert run(tmp_path, source) == (1, "differs")
    (tmp_path / "fast.py").write_text(FAST.replace("FACTOR", "1.0"))
    assert run(tmp_path, source) == (0, "agrees")


def test_a_wrong_gradient_alone_is_shown(tmp_path: Path) -> None:
    fast = FAST.replace("FACTOR", "1.0").replace("    return k\n", "    return k.detach()\n")
    source = script(tmp_path, "Attention", CASE, "gradients", fast)
    assert "TENSOR, ALLOWED = 'grad " in source
    assert run(tmp_path, source) == (1, "differs")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"regime": "ties"}, "x is no multiple of random numbers in the regime 'ties'"),
        ({"layout": "transposed"}, "its layout is 'transposed', and a script knows 'contiguous'"),
        ({"training": True, "attn_pdrop": 0.5}, "dropout is random"),
    ],
)
def test_a_case_of_which_no_script_can_be_written_is_refused(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match="no script can be written of this case") as refused:
        script(tmp_path, "Attention", CASE.but(**changes), "output", FAST.replace("FACTOR", "1.5"))
    assert why in str(refused.value)


def test_a_difference_that_a_plain_call_does_not_show_is_refused(tmp_path: Path) -> None:
    fast = FAST.replace("FACTOR * y", "y * (1.5 if __import__('torch').is_inference_mode_enabled() else 1.0)")
    with pytest.raises(UsageError, match=r"without equivcheck the pair does not differ so \(agrees\)"):
        script(tmp_path, "Attention", CASE, "output", fast)


def test_another_shape_is_no_difference_of_values(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="it shows no difference of an output or a gradient"):
        script(tmp_path, "attend", CASE, "output", FAST.replace("FACTOR * y", "y[..., :1]"))
