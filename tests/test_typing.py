"""The public names are typed for those who import them: a sample that uses each one is clean under `mypy --strict`."""

import os
import re
import subprocess
import sys
from pathlib import Path

import equivcheck

ROOT = Path(__file__).parent.parent
SAMPLE = Path(__file__).parent / "typed_sample.py"


def test_the_sample_uses_every_public_name() -> None:
    used = set(re.findall(r"\bequivcheck\.(\w+)", SAMPLE.read_text(encoding="utf-8")))
    assert used == set(equivcheck.__all__)


def test_the_sample_is_clean_and_a_wrong_use_is_not(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"  # were the names typed as Any, nothing would be wrong with anything
    text = SAMPLE.read_text(encoding="utf-8")
    text = text.replace("max_seconds=seconds", "max_seconds='soon'").replace("result.worst_ratio", "result.worst")
    text = text.replace('profile="quick"', 'profile="quik"').replace('require=["values"]', 'require=["value"]')
    wrong.write_text(text, encoding="utf-8")
    # as another project has it: none of this one's settings, and what is wrong inside of a package is not its business
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--follow-imports=silent", SAMPLE, wrong]
    where = os.environ | {"MYPYPATH": str(ROOT), "MYPY_CACHE_DIR": str(ROOT / ".mypy_cache" / "sample")}
    done = subprocess.run(command, cwd=tmp_path, env=where, capture_output=True, text=True, timeout=600)
    lines = done.stdout.splitlines()
    assert SAMPLE.name not in done.stdout, done.stdout + done.stderr
    assert done.returncode == 1, done.stdout + done.stderr
    assert [line for line in lines if 'has incompatible type "str"; expected "float | None"' in line]
    assert [line for line in lines if '"CheckResult" has no attribute "worst"' in line]
    assert [line for line in lines if "\"Literal['quik']\"; expected" in line]
    assert [line for line in lines if "expected \"Literal['values', 'training', 'transforms', 'drop-in']\"" in line]
    assert lines[-1].startswith("Found 4 errors in 1 file (checked 2 source files)")
