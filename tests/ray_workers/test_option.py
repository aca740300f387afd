"""The option `--workers`: what contradicts it, and the words with which each part of a run is started."""

import sys

import click
import pytest

from equivcheck.cli.judge import judge
from equivcheck.cli.main import main
from equivcheck.cli.ray_workers import address_from, options_given
from equivcheck.cli.verify import verify
from equivcheck.errors import UsageError


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (None, None),
        ("ray", ""),
        ("ray:local", "local"),
        ("ray:10.0.0.1:6379", "10.0.0.1:6379"),
        ("ray:ray://h:1", "ray://h:1"),
    ],
)
def test_an_address_stands_behind_the_name_of_the_engine(text: str | None, address: str | None) -> None:
    assert address_from(text, device="auto") == address


@pytest.mark.parametrize("text", ["", "rays", "dask", "Ray", "10.0.0.1:6379"])
def test_another_engine_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="ray or ray:ADDRESS is allowed"):
        address_from(text, device="auto")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--shard 1/2", "--shard 1/2 with --workers ray: it cuts the run itself; leave one of them out"),
        ("--fail-fast", "--workers ray with --fail-fast: a shard runs all of its cases; leave one of them out"),
        (
            "--profile screen",
            "--workers ray with --profile screen: a screen is too small to be cut; leave one of them out",
        ),
        ("--device cuda:1", "--device cuda:1 with --workers ray: Ray chooses the GPU of a task; give --device cuda"),
    ],
)
def test_what_contradicts_it_is_refused_in_one_line(
    words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", "--workers", "ray", *words.split()]) == 2
    assert capsys.readouterr().err.splitlines() == [f"equivcheck: {message}"]


@pytest.mark.parametrize("command", ["verify", "judge"])
def test_a_missing_ray_is_one_line(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    sides = ("equivcheck.attention:CausalSelfAttention", "equivcheck.attention:FlashCausalSelfAttention")
    assert main([command, *sides, "--workers", "ray", "--profile", "quick"]) == 2
    message = 'equivcheck: --workers ray needs Ray: pip install "equivcheck[ray]"'
    assert capsys.readouterr().err.splitlines() == [message]


def words_of(command: click.Command, line: str) -> list[str]:
    with command.make_context(command.name, line.split()) as context:
        return options_given(context)


@pytest.mark.parametrize(
    "words",
    [
        "",
        "--check=output --check=errors --seed=3",
        "--gpu --strict --no-profile-run --no-remembered",
        "--profile-run --max-seconds=1.5 --case-seconds=60.0 --worker-memory=8GiB",
        "--deviation=output=why --domain=seq_len>1 --require=values,training --oracle=a:b --setup=-x",
    ],
)
def test_a_part_has_the_options_of_the_caller(words: str) -> None:
    given = words_of(verify, f"a:A b:B {words}")
    assert sorted(given) == sorted(words.split())


def test_a_part_has_none_of_the_callers_files_and_no_engine() -> None:
    line = "a:A b:B --json a --junit b --sarif c --report d --format jsonl --workers ray --jobs 2 --seed 1"
    assert words_of(verify, line) == ["--seed=1"]
    line = "a:A b:B --json a --feedback none --workers ray --name N --jobs 2 --timing-seconds 2"
    assert words_of(judge, line) == ["--timing-seconds=2.0"]
