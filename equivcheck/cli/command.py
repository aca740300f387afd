"""A command with examples in its help, and the group of all commands."""

from typing import Any

import click

from equivcheck.runtime.nearest_name import did_you_mean

__all__ = ["Command", "Group", "unknown_option"]


class Command(click.Command):
    """A command whose help ends with examples.

    Attributes:
        examples: Whole lines as a user types them.
    """

    def __init__(self, *arguments: Any, examples: tuple[str, ...] = (), **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.examples = examples

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples as they are: a line that is wrapped cannot be copied."""
        super().format_epilog(ctx, formatter)
        if self.examples:
            with formatter.section("Examples"):
                for line in self.examples:
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n")


class Group(click.Group):
    """The commands; the error for another one ends with the nearest of them."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command as any group does."""
        name = args[0]
        if not ctx.resilient_parsing and not name.startswith("-") and self.get_command(ctx, name) is None:
            raise click.UsageError(f"No such command {name!r}{did_you_mean(name, self.list_commands(ctx))}", ctx)
        return super().resolve_command(ctx, args)


def unknown_option(error: click.NoSuchOption) -> str:
    """The message for an option that a command does not have, with the nearest that it has."""
    known = [] if error.ctx is None else [*error.ctx.command.get_params(error.ctx)]
    names = [name for option in known for name in (*option.opts, *option.secondary_opts) if name.startswith("--")]
    return f"No such option {error.option_name!r}{did_you_mean(error.option_name, names)}"
