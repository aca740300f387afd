"""Whether two commits do the same: reports of pairs of every kind, right and wrong, the cases drawn, and public import paths.

    python benchmarks/same.py BASE [NEW]

Each commit is checked out into a folder of its own and run there, in the profile quick with seed 0; what a commit gave is
kept beside the folder, so that a base is run once. Times, hashes, sources and paths are left out. Exit status 0 where all is
the same, else 1, with what differs.
"""

import difflib
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(tempfile.gettempdir()) / "equivcheck-same"
PAIRS = """
import math
import torch
from torch import nn
from torch.nn import functional as F
from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention, replace_attention_with_flash_attention
from equivcheck.gpt import GPT, GPTConfig

def slow(q, k, v, is_causal=False, scale=None):
    s = q @ k.transpose(-2, -1) * (1 / math.sqrt(q.size(-1)) if scale is None else scale)
    if is_causal:
        s = s.masked_fill(~torch.ones(s.shape[-2:], dtype=torch.bool, device=s.device).tril(), -math.inf)
    return s.softmax(-1) @ v

def fast(q, k, v, is_causal=False, scale=None):
    return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal, scale=scale)

def from_17_on(q, k, v, is_causal=False, scale=None):
    y = F.scaled_dot_product_attention(q, k, v, is_causal=is_causal, scale=scale)
    return torch.cat([y[..., :16, :], y[..., 16:, :] * 1.05], -2)

class DropoutInEval(FlashCausalSelfAttention):
    def forward(self, x):
        return F.dropout(super().forward(x), 0.3, True)

class Fast(GPT):
    def __init__(self, config):
        super().__init__(config)
        replace_attention_with_flash_attention(self)

class Detached(Fast):
    def forward(self, idx, targets=None):
        for block in self.blocks:
            block.attn.key.weight.requires_grad_(False)
        return super().forward(idx, targets)

def forgets_a_layer(model):
    replace_attention_with_flash_attention(model)
    model.blocks[0].attn = CausalSelfAttention(model.config)
    return model
"""
RUNS = {
    "module": ("equivcheck.attention:CausalSelfAttention", "equivcheck.attention:FlashCausalSelfAttention"),
    "module-wrong": ("equivcheck.attention:CausalSelfAttention", "pairs:DropoutInEval"),
    "function": ("pairs:slow", "pairs:fast"),
    "function-wrong": ("pairs:slow", "pairs:from_17_on"),
    "model": ("equivcheck.gpt:GPT", "pairs:Fast"),
    "model-wrong": ("equivcheck.gpt:GPT", "pairs:Detached"),
    "replacement": ("equivcheck.gpt:GPT", "equivcheck.attention:replace_attention_with_flash_attention"),
    "replacement-wrong": ("equivcheck.gpt:GPT", "pairs:forgets_a_layer"),
}
DRAWN = """
import importlib, json
def module(*names):
    for name in names:
        try:
            return importlib.import_module("equivcheck." + name)
        except ModuleNotFoundError:
            pass
    raise SystemExit(f"none of {names}")
CHECKS = module("checks").CHECKS
classes = module("engine.strata", "case_space").classes
draw_cases = module("engine.drawing", "drawing").draw_cases
resolve = module("pairs.resolve", "kinds").resolve
seed_for = module("engine.search", "search").seed_for
planned_cases = module("engine.plan", "plan").planned_cases
import pairs
drawn = {}
for kind, of in {
    "module": (pairs.CausalSelfAttention, pairs.FlashCausalSelfAttention),
    "function": (pairs.slow, pairs.fast),
    "model": (pairs.GPT, pairs.Fast),
    "replacement": (pairs.GPT, pairs.replace_attention_with_flash_attention),
}.items():
    pair = resolve(*of, kind=kind, device="cpu")
    for check in CHECKS:
        if kind not in check.kinds:
            continue
        for profile in ("quick", "gate"):
            cases = drawn.setdefault(f"{kind} {check.name} {profile}", [])
            planned = planned_cases(check, subject=pair, profile=profile, dtypes=4)
            dtypes = ("float32", "float64", "bfloat16", "float16")
            for number, (strategy, count) in enumerate(classes(check, pair, dtypes, planned)):
                draw_cases(strategy, count, seed_for(0, check.name) + number, lambda case: cases.append(case.id))
print(json.dumps(drawn, indent=0))
"""
PUBLIC = """
import importlib
for name, parts in {
    "equivcheck": "verify assert_equivalent suite Case Report CheckResult Mismatch UsageError",
    "equivcheck.attention": "CausalSelfAttention FlashCausalSelfAttention "
    "replace_attention_with_flash_attention restore_original_attention",
    "equivcheck.gpt": "GPT GPTConfig",
    "equivcheck.pytest_plugin": "pytest_addoption",
    "equivcheck.adapters.huggingface": "",
    "equivcheck.adapters.kernels": "",
    "equivcheck.faults": "FAULTS RIGHT",
    "equivcheck.report.schema": "",
}.items():
    module = importlib.import_module(name)
    for part in parts.split():
        print(name, part, callable(getattr(module, part)) or len(getattr(module, part)))
"""
_LEFT_OUT = re.compile(
    r"seconds|_s$|hash|sources|packages|paths?$|created|host|digest|environment|integrity|jobs|files?$"
)


def plain(value: object) -> object:
    """A report without times, hashes, sources and paths."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if not _LEFT_OUT.search(k)}
    if isinstance(value, list):
        return [plain(v) for v in value]
    return value


def run(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{FOLDER}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=FOLDER, env=environment, capture_output=True, text=True, check=False
    )
    return done.stdout if done.returncode in (0, 1) and done.stdout else f"{done.stdout}{done.stderr}"


def given_by(commit: str) -> dict[str, str]:
    """What a commit does, as text by name."""
    kept = FOLDER / f"{commit}-{hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]}.json"
    if kept.exists():
        return dict(json.loads(kept.read_text()))
    folder = FOLDER / commit
    if not folder.exists():
        subprocess.run(["git", "worktree", "add", "--detach", "--quiet", str(folder), commit], check=True)
    given = {"public": run(folder, "-c", PUBLIC), "drawn": run(folder, "-c", DRAWN)}
    for name, pair in RUNS.items():
        out = FOLDER / "report.json"
        out.unlink(missing_ok=True)
        said = run(folder, "-m", "equivcheck", "verify", *pair, "--profile", "quick", "--json", str(out), "--jobs", "2")
        if out.exists():
            said = json.dumps(plain(json.loads(out.read_text())), indent=1, sort_keys=True)
        given[name] = said
    kept.write_text(json.dumps(given))
    subprocess.run(["git", "worktree", "remove", "--force", str(folder)], check=True)
    return given


def main() -> int:
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "pairs.py").write_text(PAIRS)
    commits = [
        subprocess.run(["git", "rev-parse", name], check=True, capture_output=True, text=True).stdout.strip()
        for name in (sys.argv[1], *(sys.argv[2:] or ["HEAD"]))
    ]
    base, new = map(given_by, commits)
    status = 0
    for name in base:
        lines = list(difflib.unified_diff(base[name].splitlines(), new[name].splitlines(), lineterm="", n=1))
        size = len(base[name].splitlines())
        print(f"{name}: {'the same' if not lines else 'DIFFERENT'}, {size} lines")
        print("\n".join(lines[:40]))
        status |= bool(lines)
    return status


if __name__ == "__main__":
    sys.exit(main())
