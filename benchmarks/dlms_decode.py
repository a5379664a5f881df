"""Decode cost of a load profile (96 rows of 6 columns): ours beside the parser of dlms-cosem, the same bytes.

    python benchmarks/dlms_decode.py [--peer PYTHON]

ours: `axdr.decode_all`, types kept; and the same with the clock of every row as UTC. peer: `parse_as_dlms_data` of
dlms-cosem 21.3.2 (the version this program takes its ciphers from), which leaves the clocks as bytes. It runs in its
own process; --peer: another interpreter that has it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

from headend.protocols.dlms.axdr import Datum, Tag, decode_all, encode
from headend.protocols.dlms.clock import clock_time, parse_time
from headend.protocols.dlms.settings import DlmsSettings

ROWS = 96
ROUNDS = 300
ZONE = "Asia/Shanghai"

_PEER = """
import sys, time
from dlms_cosem.utils import parse_as_dlms_data
data, rounds = bytes.fromhex(sys.argv[1]), int(sys.argv[2])
started = time.process_time()
for _ in range(rounds):
    rows = parse_as_dlms_data(data)
took = time.process_time() - started
assert len(rows) == 96 and len(rows[0]) == 6 and rows[1][2] == 1000037, rows[:2]
print(took / rounds * 1e6)
"""


def profile() -> bytes:
    """A day of 15-minute rows: clock, status, four registers."""
    start, settings = datetime(2024, 1, 1, tzinfo=UTC), DlmsSettings()
    rows = []
    for index in range(ROWS):
        at = clock_time(start + index * timedelta(minutes=15), settings, ZONE)
        cells = [Datum(Tag.OCTET_STRING, at), Datum(Tag.UNSIGNED, 0)]
        cells += [Datum(Tag.DOUBLE_LONG_UNSIGNED, 1_000_000 + 37 * index + offset) for offset in range(4)]
        rows.append(Datum(Tag.STRUCTURE, tuple(cells)))
    return encode(Datum(Tag.ARRAY, tuple(rows)))


def ours(data: bytes) -> tuple[float, float]:
    """Microseconds of CPU a profile: types only, and with every clock as UTC."""
    started = time.process_time()
    for _ in range(ROUNDS):
        rows = decode_all(data).value
    typed = time.process_time() - started
    assert len(rows) == ROWS
    assert rows[1].value[2].value == 1_000_037
    settings = DlmsSettings()
    started = time.process_time()
    for _ in range(ROUNDS):
        stamps = [parse_time(row.value[0], settings, ZONE).at for row in decode_all(data).value]
    timed = time.process_time() - started
    assert stamps[-1] == datetime(2024, 1, 1, 23, 45, tzinfo=UTC)
    return typed / ROUNDS * 1e6, timed / ROUNDS * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", default=sys.executable)
    options = parser.parse_args()
    data = profile()
    typed, timed = ours(data)
    print(f"{len(data)} bytes, {ROWS} rows of 6: ours {typed:.0f} µs, {timed:.0f} µs with the times as UTC")
    command = [options.peer, "-c", _PEER, data.hex(), str(max(ROUNDS // 10, 1))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"peer failed: {done.stderr[-400:]}")
        return
    theirs = float(done.stdout)
    print(f"peer {theirs:.0f} µs, {theirs / typed:.1f} times ours")


if __name__ == "__main__":
    main()
