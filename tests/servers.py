"""Servers that tests start for themselves: a PostgreSQL on a free loopback port, in a folder that goes with it."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["free_port", "postgresql", "postgresql_bin"]

_USERS = ("postgres", "nobody")


def free_port() -> int:
    """A loopback port nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def postgresql_bin() -> Path | None:
    """The folder with `initdb` and `postgres`: the newest installed version, else what pg_config or PATH name."""
    installed = Path("/usr/lib/postgresql").glob("*/bin")
    folders = sorted(installed, key=lambda folder: float(folder.parent.name), reverse=True)
    if config := shutil.which("pg_config"):
        told = subprocess.run([config, "--bindir"], capture_output=True, text=True, check=False)
        folders.append(Path(told.stdout.strip()))
    if found := shutil.which("initdb"):
        folders.append(Path(found).resolve().parent)
    return next((f for f in folders if (f / "initdb").is_file() and (f / "postgres").is_file()), None)


def _as_server_user() -> tuple[list[str], str | None]:
    """What to put before a server's command, and whose the folder must be: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return [], None
    user = next((name for name in _USERS if any(name == entry.pw_name for entry in pwd.getpwall())), None)
    if user is None:
        raise RuntimeError(f"running as root, and there is none of the users {', '.join(_USERS)} to run PostgreSQL as")
    return [shutil.which("setpriv") or "setpriv", f"--reuid={user}", f"--regid={_group(user)}", "--clear-groups"], user


def _group(user: str) -> str:
    return str(pwd.getpwnam(user).pw_gid)


@contextmanager
def postgresql(binaries: Path) -> Iterator[str]:
    """A running server; its SQLAlchemy URL up to and including the slash before the database name.

    Nothing it holds outlives a power cut (fsync off), nor the block. Encoded in UTF-8 whatever the locale: in
    SQL_ASCII the driver would give bytes for text.
    """
    before, user = _as_server_user()
    with tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        if user is not None:
            shutil.chown(folder, user, int(_group(user)))
        data, log, port = folder / "data", folder / "log", free_port()
        initdb = [binaries / "initdb", "-D", data, "-E", "UTF8", "--locale=C.UTF-8", "-U", "postgres", "-A", "trust"]
        _run([*before, *map(str, initdb), "--no-sync"], folder)
        settings = {
            "port": port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": folder,
            "fsync": "off",
            "full_page_writes": "off",
            "synchronous_commit": "off",
            "max_connections": 60,
            "shared_buffers": "32MB",
        }
        options = " ".join(f"-c {key}={value}" for key, value in settings.items())
        control = [*before, str(binaries / "pg_ctl"), "-D", str(data), "-w", "-t", "60"]
        _run([*control, "-l", str(log), "-o", options, "start"], folder)
        try:
            yield f"postgresql+psycopg://postgres@127.0.0.1:{port}/"
        finally:
            _run([*control, "-m", "immediate", "stop"], folder)


def _run(command: list[str], folder: Path) -> None:
    # The output goes to a file: pg_ctl's server would keep a pipe open, and reading it would never end.
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, check=False
        )
        if done.returncode:
            output.seek(0)
            raise RuntimeError(f"{' '.join(command)}\n{output.read().decode(errors='replace')}")
