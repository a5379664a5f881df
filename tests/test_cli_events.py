"""Status words become events: read as one block, stored, and shown as what changed between two reads."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from headend.ingest import EvidencePolicy, write
from headend.model import Outcome, Reading, ReadJob, ReadKind, Source, Status
from headend.protocols import PROTOCOLS
from headend.store import open_store, registry
from tests.dlt645_wire import NOW, job, meter, read_answer, read_request
from tests.helpers import make_meter

WORDS = tuple(f"status_word_{n}" for n in range(1, 8))

_SITE = """
[site]
name = "events"

[[line]]
name = "L"
endpoint = "tcp://127.0.0.1:9"

[[schedule]]
name = "status"
read = "registers"
every_min = 60
quantities = ["status_word_3"]
"""


def test_seven_words_are_asked_for_in_one_question() -> None:
    """The words of a recorded relay dialogue: word 3 is 0050 after a trip."""
    conversation = PROTOCOLS["dlt645-2007"].read(meter(), job(ReadKind.REGISTERS, *WORDS), now=NOW)
    request = next(conversation)
    assert getattr(request, "data", b"") == read_request("040005FF")
    block = b"".join(value.to_bytes(2, "little") for value in (0, 0, 0x0050, 1, 0, 0, 0))
    try:
        conversation.send(read_answer("040005FF", block))
    except StopIteration as stop:
        values = {reading.quantity: int(reading.value) for reading in stop.value.readings}
        assert values == dict(zip(WORDS, (0, 0, 0x0050, 1, 0, 0, 0), strict=True))
    else:
        raise AssertionError("it asked on")


def test_what_changed_is_shown_with_its_bounds(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text(_SITE)
    store = open_store(f"sqlite:///{tmp_path / 'headend.db'}")
    model = make_meter().model
    row = registry.MeterRow(
        "M1", "dlt645-2007", "000000000001", "L", "dlt645-2007-1ph", "+08:00", model.register_wrap, 900
    )
    first = datetime(2026, 10, 1, tzinfo=UTC)
    with store.write() as conn:
        registry.put_meters(conn, [row])
        [stored] = registry.meters(conn)
        known = make_meter(key=stored.key, id="M1", line="L")
        asked = ReadJob(known, ReadKind.REGISTERS, ("status_word_3",))
        for hour, word in enumerate((0x0000, 0x0010, 0x0010, 0x0000)):
            at = first + timedelta(hours=hour)
            reading = Reading("status_word_3", Decimal(word), at, at, Source.INSTANT)
            write(conn, [Outcome(asked, Status.OK, at, 0.1, (reading,))], EvidencePolicy())
    store.close()
    command = [sys.executable, "-m", "headend", "events", "M1", "--from", "2026-09-30", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    shown = [(e["flag"], e["change"], e["after"], e["at"]) for e in json.loads(done.stdout)]
    assert shown == [
        ("relay_open", "raised", "2026-10-01T00:00:00+00:00", "2026-10-01T01:00:00+00:00"),
        ("relay_open", "cleared", "2026-10-01T02:00:00+00:00", "2026-10-01T03:00:00+00:00"),
    ]
