"""The verbs. Each is thin: parse, call, print. Errors are one clear message on stderr and exit status 1."""

from __future__ import annotations

import sys

import click

from headend import __version__
from headend.cli import (
    account,
    analyse,
    bill,
    bill_backbill,
    bill_corrections,
    bill_documents,
    bill_review,
    catalogue,
    check,
    control,
    decode,
    demo,
    dlms,
    estimate,
    events,
    imports,
    keys,
    line,
    modbus,
    mqtt,
    plan,
    quarantine,
    read,
    reads,
    run,
    scan,
    simulate,
    status,
    tariff,
    trace,
)
from headend.cli.common import CONTEXT
from headend.errors import ConfigError, HeadendError

__all__ = ["main"]


@click.group(context_settings=CONTEXT)
@click.version_option(__version__, prog_name="headend")
def cli() -> None:
    """Smart-meter head-end: reads meters over their lines, keeps every interval, bills from them.

    \b
    A first look:          headend demo
    A site of your own:    write site.toml (docs/site.md), then
                           headend check; headend import ...; headend run

    Most verbs work on one site, named by --site or the environment variable HEADEND_SITE (default: ./site.toml).
    """


for _command in (
    demo.demo,
    check.check,
    imports.import_,
    run.run,
    read.read,
    reads.reads,
    status.status,
    events.events,
    estimate.estimate,
    quarantine.quarantine,
    mqtt.mqtt,
    line.line,
    trace.trace,
    scan.scan,
    plan.plan,
    modbus.model,
    dlms.dlms,
    keys.keys,
    control.clock,
    control.relay,
    control.commands,
    bill.bill,
    bill.explain,
    analyse.analyse,
    tariff.tariff,
    account.account,
    decode.decode,
    decode.quantities,
    catalogue.catalogue,
    simulate.simulate,
):
    cli.add_command(_command)

for _command in (
    bill_review.review,
    bill_review.release,
    bill_review.preview,
    bill_review.runs,
    bill_corrections.correct,
    bill_corrections.recompute_,
    bill_corrections.adjust,
    bill_corrections.adjustments,
    bill_backbill.backbill,
    bill_documents.pdf,
    bill_documents.export,
):
    bill.bill.add_command(_command)
account.account.add_command(bill_documents.statement)


def main() -> None:
    """Entry point: every error meant for a person ends here, without a traceback."""
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("stopped", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except ConfigError as error:
        for problem in error.problems:
            click.echo(f"error: {problem}", err=True)
        click.echo(f"{len(error.problems)} problem(s); nothing was started or changed", err=True)
        sys.exit(1)
    except HeadendError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(0)
    except UnicodeEncodeError:
        # Bytes that are no UTF-8 reach us as lone surrogates, which no database takes.
        if not any("\udc80" <= letter <= "\udcff" for word in sys.argv for letter in word):
            raise
        click.echo("error: an argument holds bytes that are no text -> write it in UTF-8", err=True)
        sys.exit(1)
