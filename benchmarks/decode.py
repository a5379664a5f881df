"""Decode cost of a frame: ours beside the PyPI package dlt645, the same published answer, each in its own process.

    python benchmarks/decode.py [--peer PYTHON]

ours: the scanner, every check, and the value as Decimal with its name and unit from the catalogue. peer: its frame
deserialiser and its BCD conversion to float.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from pathlib import Path

from headend.protocols.dlt645.bcd import number
from headend.protocols.dlt645.catalogue import find
from headend.protocols.dlt645.frame import Scanner

ANSWER = bytes.fromhex("FEFEFEFE6861010000000068910833333433593333338A16")  # 0.26 kWh, a published answer
ROUNDS = 50_000

_PEER = """
import sys, time
from loguru import logger
logger.remove()
from dlt645.protocol.protocol import DLT645Protocol
from dlt645.common.transform import bcd_to_value
answer = bytes.fromhex(sys.argv[1])
started = time.process_time()
for _ in range(int(sys.argv[2])):
    frame = DLT645Protocol.deserialize(answer)
    value = bcd_to_value(frame.data[4:8], "XXXXXX.XX", "little")
took = time.process_time() - started
assert abs(float(value) - 0.26) < 1e-9, value
print(took / int(sys.argv[2]) * 1e6)
"""


def ours() -> float:
    """Microseconds of CPU a frame."""
    started = time.process_time()
    for _ in range(ROUNDS):
        [frame] = Scanner().feed(ANSWER)
        item = find(frame.di)
        assert item is not None
        value = number(frame.data[4:], item.places, signed=item.signed)
    took = time.process_time() - started
    assert str(value) == "0.26"
    return took / ROUNDS * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, default=Path(".venv-peers/dlt645/bin/python"))
    options = parser.parse_args()
    mine = ours()
    print(f"ours {mine:.2f} µs a frame")
    if not options.peer.exists():
        print(f"peer: {options.peer} is not there (make peers)")
        return
    command = [options.peer, "-c", _PEER, ANSWER.hex(), str(ROUNDS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"peer failed: {done.stderr[-400:]}")
        return
    theirs = float(done.stdout)
    print(f"peer {theirs:.2f} µs a frame, {theirs / mine:.1f} times ours")


if __name__ == "__main__":
    main()
