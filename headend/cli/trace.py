"""headend trace: the frames of a line as they go by."""

from __future__ import annotations

import asyncio

import click

from config.site import Site
from headend.cli.common import instant, local, site_option
from headend.cli.line import find_line, frame_text
from headend.local_api import follow_daemon

__all__ = ["trace"]


@click.command()
@site_option
@click.argument("name", metavar="LINE")
@click.option("--meter", "-m", default="", metavar="ID", help="Frames of this meter only.")
@click.option("--hex", "as_hex", is_flag=True, help="Bytes instead of words.")
def trace(site: Site, name: str, meter: str, as_hex: bool) -> None:
    """Show the frames of a line of the running daemon as they go by, decoded, until Ctrl-C.

    The line is not slowed: when frames come faster than they are shown, some are left out, and how many is said.
    """
    find_line(site, name)
    try:
        asyncio.run(_follow(site, name, meter, as_hex))
    except KeyboardInterrupt:
        click.echo("stopped", err=True)
    else:
        click.echo("the head-end has stopped", err=True)


async def _follow(site: Site, name: str, meter: str, as_hex: bool) -> None:
    dropped = 0
    async for frame in follow_daemon(site.path, {"do": "trace", "line": name, "meter": meter}):
        if frame["dropped"] > dropped:
            click.echo(f"... {frame['dropped'] - dropped} frames left out", err=True)
            dropped = frame["dropped"]
        at = local(instant(frame["at"], site.zone), site.zone)
        click.echo(f"{at} {frame['direction']} {frame['meter'] or '-'} {frame_text(frame, as_hex=as_hex)}")
