"""Mistakes on a command line: each is answered without torch and without a process, with the name that was meant."""

import json
import subprocess
import sys
from pathlib import Path

SHIPPED = ["equivcheck.attention:CausalSelfAttention", "equivcheck.attention:FlashCausalSelfAttention"]
REPLAY = ["replay", "B1-T3-H1-D4-K4-float32-eval-a0-r0-sharpened-contiguous-s0"]
LINES = {
    "cannot import 'wrong.module': ModuleNotFoundError": [
        ["verify", "wrong.module:x", "other:y"],
        [*REPLAY, "wrong.module:x", "other:y"],
        ["bench", "wrong.module:x", "other:y"],
        ["verify", *SHIPPED, "--config", "wrong.module:x"],
        ["verify", *SHIPPED, "--oracle", "wrong.module:x"],
        ["verify", *SHIPPED, "--setup", "wrong.module:x"],
        [*REPLAY, *SHIPPED, "--inputs", "wrong.module:x"],
    ],
    "unknown device 'tpu'": [[*command, *SHIPPED, "--device", "tpu"] for command in (["verify"], REPLAY, ["bench"])],
    "unknown device 'cuda:x'": [["verify", *SHIPPED, "--device", "cuda:x"]],
    "unknown check 'outputs'": [
        ["verify", *SHIPPED, "--check", "outputs"],
        ["verify", *SHIPPED, "--exclude", "outputs"],
        [*REPLAY, *SHIPPED, "--check", "outputs"],
    ],
    "check 'checkpoint' does not apply to a function": [
        ["verify", *SHIPPED, "--kind", "function", "--check", "checkpoint"]
    ],
    "--require-backend 'fast'": [["verify", *SHIPPED, "--require-backend", "fast"]],
    "Invalid value for '--max-memory-ratio': inf is not a finite number of times": [
        ["verify", *SHIPPED, "--max-memory-ratio", "inf"]
    ],
    "the check 'memory' judges against a limit": [["verify", *SHIPPED, "--check", "memory"]],
    "--worker-memory '3x'": [["verify", *SHIPPED, "--worker-memory", "3x"]],
    "No such option '--profil' (did you mean '--profile'?); see equivcheck verify --help": [
        ["verify", *SHIPPED, "--profil", "quick"]
    ],
    "No such option '--no-remembred' (did you mean '--no-remembered'?)": [["verify", "--no-remembred"]],
    "No such option '--zz'; see equivcheck report --help": [["report", "x.json", "--zz"]],
    "No such command 'verfy' (did you mean 'verify'?); see equivcheck --help": [["verfy"]],
    "No such command 'zz'; see equivcheck --help": [["zz"]],
    "unknown check 'output_' (did you mean 'output'?): equivcheck checks lists them": [
        ["verify", *SHIPPED, "--check", "output_"],
        ["verify", *SHIPPED, "--exclude", "output_"],
        [*REPLAY, *SHIPPED, "--check", "output_"],
        ["judge", *SHIPPED, "--exclude", "output_"],
        ["gate", "x.json", "--check", "output_"],
        ["faults", "--check", "output_"],
    ],
    "unknown check 'hooks' (did you mean 'replacement.hooks'?)": [["verify", *SHIPPED, "--check", "hooks"]],
    "unknown check 'zz': allowed are output, gradients": [["verify", *SHIPPED, "--check", "zz"]],
    "Invalid value for '--profile': 'gat' is not one of 'screen', 'quick', 'gate', 'thorough' (did you mean 'gate'?)": [
        ["verify", "--profile", "gat"],
        ["judge", *SHIPPED, "--profile", "gat"],
    ],
    "Invalid value for '--kind': 'modul' is not one of 'auto', 'module', 'function', 'model', 'replacement' "
    "(did you mean 'module'?)": [[*command, "--kind", "modul"] for command in (["verify"], REPLAY, ["bench"])],
    "Invalid value for '--level': 'dropin' is not one of 'values', 'training', 'transforms', 'drop-in' "
    "(did you mean 'drop-in'?)": [[name, "--level", "dropin"] for name in ("checks", "faults")],
    "--require: unknown level 'value': allowed are values, training, transforms, drop-in (did you mean 'values'?)": [
        ["verify", "--require", "value"],
        ["judge", *SHIPPED, "--require", "training,value"],
        ["gate", "x.json", "--require", "value"],
    ],
    "unknown device 'gpu': allowed are auto, cpu, cuda and cuda:N (did you mean 'cuda'?)": [
        ["verify", "--device", "gpu"]
    ],
}
PROGRAM = """
import json, subprocess, sys
from equivcheck.cli.main import main

def refuse(*given, **options):
    raise AssertionError("a process was started")

subprocess.Popen = refuse
for line in json.loads(sys.argv[1]):
    print(main(line), file=sys.stderr)
    assert "torch" not in sys.modules, line
"""


def test_a_mistake_is_one_line_without_torch_and_without_a_process(tmp_path: Path) -> None:
    lines = [(message, line) for message, lines in LINES.items() for line in lines]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps([line for _, line in lines])],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = done.stderr.splitlines()
    assert said[1::2] == ["2"] * len(lines)
    for (message, line), answer in zip(lines, said[::2], strict=True):
        assert answer.startswith(f"equivcheck: {message}"), line


def test_a_mistake_leaves_the_report_of_an_earlier_run(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("{}")
    command = [sys.executable, "-m", "equivcheck", "verify", "wrong.module:x", "other:y", "--json", "report.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert (tmp_path / "report.json").read_text() == "{}"
