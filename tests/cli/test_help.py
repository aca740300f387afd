"""The help of each command: a summary that is not cut, and examples that can be run."""

import shlex

import click
import pytest

from equivcheck.cli.command import Command
from equivcheck.cli.main import cli, main
from equivcheck.report.chosen_checks import refuse_unknown_checks

COMMANDS = sorted(cli.commands)


def commands() -> dict[str, Command]:
    return {name: command for name, command in cli.commands.items() if isinstance(command, Command)}


def test_every_command_can_have_examples_and_has_two_or_three() -> None:
    assert sorted(commands()) == COMMANDS
    assert {name: len(c.examples) for name, c in commands().items() if len(c.examples) not in (2, 3)} == {}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_ends_with_whole_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    *_, last = capsys.readouterr().out.partition("\nExamples:\n")
    assert last.splitlines() == [f"  {line}" for line in commands()[name].examples]


@pytest.mark.parametrize("line", [line for command in commands().values() for line in command.examples])
def test_the_options_and_values_of_an_example_exist(line: str) -> None:
    program, name, *arguments = shlex.split(line)
    assert program == "equivcheck"
    context = commands()[name].make_context(name, arguments)  # a wrong option or value is an exception
    refuse_unknown_checks(context.params.get("checks"), context.params.get("exclude"))


def test_an_example_with_a_wrong_option_would_be_seen() -> None:
    with pytest.raises(click.NoSuchOption):
        commands()["verify"].make_context("verify", ["--chek", "output"])


def test_the_help_of_all_commands_cuts_no_summary(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    lines = capsys.readouterr().out.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in lines] == COMMANDS
    assert [line for line in lines if not line.endswith(".") or line.endswith("...") or len(line) > 80] == []
