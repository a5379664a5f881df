"""docs/cli.md from the verbs themselves: `python -m headend.cli.reference > docs/cli.md`. A test keeps it true."""

from __future__ import annotations

from collections.abc import Iterator

import click

from headend.cli import cli
from headend.cli.common import CONTEXT

__all__ = ["reference"]


def reference() -> str:
    """Every verb with its help, as Markdown."""
    parts = [
        "# The command line\n",
        "Every verb has `--help`. Errors are one message on stderr: what is wrong, where, what to do; the exit status",
        "is 1 then (2 for a wrong call). Written by `python -m headend.cli.reference`.\n",
    ]
    for path, command in _walk("headend", cli):
        context = click.Context(
            command,
            info_name=path,
            max_content_width=100,
            terminal_width=100,
            help_option_names=CONTEXT["help_option_names"],
        )
        parts += [f"## {path}\n", "```", command.get_help(context).replace("\b\n", ""), "```\n"]
    return "\n".join(parts)


def _walk(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name, child in sorted(command.commands.items()):
            yield from _walk(f"{path} {name}", child)


if __name__ == "__main__":
    print(reference(), end="")
