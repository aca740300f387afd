"""Released attentions against their originals: what `reports/peers.md` says of each still holds for what is installed.

Minutes each, and nothing that make installs: `pip install --group peers`, then `EQUIVCHECK_PEERS=1 pytest tests/peers`.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import equivcheck
from equivcheck.errors import UsageError
from peers.pairs import PEERS, Peer

ROOT = Path(__file__).parent.parent.parent
ASKED_FOR = pytest.mark.skipif(
    not os.environ.get("EQUIVCHECK_PEERS"),
    reason="peers are asked for by EQUIVCHECK_PEERS=1, and installed by pip install --group peers",
)


@pytest.fixture(autouse=True)
def from_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # where the import strings of the pairs begin
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@ASKED_FOR
@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_the_outcome_is_the_one_that_is_known(peer: Peer) -> None:
    if peer.missing:
        pytest.skip(peer.missing)
    asked = {**peer.asked(), "checks": list(peer.checks), "device": "cpu", "profile": "quick"}
    if peer.refused:
        with pytest.raises(UsageError, match=re.escape(peer.refused)):
            equivcheck.verify(**asked)
        return
    report = equivcheck.verify(**asked)
    outcomes = {result.name: result.outcome for result in report.results}
    assert {name for name, outcome in outcomes.items() if outcome == "different"} == set(peer.differs), report
    assert report.verdict == ("different" if peer.differs else "equivalent"), report.sensitivity.survived
    for result in report.results:
        if result.counterexample is not None:
            assert re.search(peer.differs[result.name], result.counterexample.message), result.counterexample.message


@ASKED_FOR
def test_the_block_of_the_document_that_needs_transformers_is_green(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="pip install transformers, or pip install --group peers")
    document = (ROOT / "docs" / "adopting.md").read_text(encoding="utf-8")
    for name, text in re.findall(r"```python\n# (conftest|test_huggingface)\.py\n(.*?)```", document, re.S):
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        ".",
        "-k",
        "logits and float32",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert re.search(r"^\d+ passed", done.stdout, re.MULTILINE)


def test_every_peer_has_a_name_of_its_own_and_a_place_in_the_report() -> None:
    names = [peer.name for peer in PEERS]
    assert len(set(names)) == len(names)
    document = (ROOT / "reports" / "peers.md").read_text(encoding="utf-8")
    assert [name for name in names if f"`{name}`" not in document] == []
