"""Running other people's protocols: each in the Python of its own environment, which `make peers` builds."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from simulators.bus import Bus
from simulators.tcp import TcpLine

__all__ = ["PeerServer", "client_against", "peer_python", "peer_server"]

_ROOT = Path(__file__).parent.parent
_SCRIPTS = _ROOT / "tests" / "peers"


def peer_python(name: str, program: str = "python") -> Path:
    """A program of a peer's environment; skips, or fails where nothing may be skipped, when it is not there."""
    path = _ROOT / ".venv-peers" / name / "bin" / program
    if not path.exists():
        reason = f"no {path.relative_to(_ROOT)}: run make peers"
        if os.environ.get("HEADEND_NO_SKIP") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


class PeerServer:
    """A running peer meter. `port`: where it listens."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.port = port
        self._process = process

    def ask(self, word: str) -> Any:
        """What its standard input asks it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@contextmanager
def peer_server(name: str, script: str, **told: Any) -> Iterator[PeerServer]:
    """The peer's meter, told `told`; it ends with the block."""
    command = [str(peer_python(name)), str(_SCRIPTS / script), json.dumps(told)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ready = process.stdout.readline().split()
        assert ready[:1] == ["ready"], ready
        yield PeerServer(process, int(ready[1]))
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(10) == 0


def client_against(bus: Bus, name: str, script: str, address: str, steps: list[Any]) -> list[Any]:
    """What the peer's master gets for `steps` from a meter of `bus`, over TCP."""
    python = peer_python(name)

    async def main() -> list[Any]:
        line = TcpLine(bus, "127.0.0.1", 0)
        await line.start()
        told = json.dumps({"port": line.port, "address": address, "steps": steps})
        process = await asyncio.create_subprocess_exec(
            str(python), str(_SCRIPTS / script), told, stdout=asyncio.subprocess.PIPE
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), 60)
        finally:
            await line.stop()
        assert process.returncode == 0
        found: list[Any] = json.loads(output)
        return found

    return asyncio.run(main())
