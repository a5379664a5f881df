"""The vault: secrets that open for their own meter only, counters that never give a number twice, nothing shown."""

from __future__ import annotations

import asyncio
import base64
import io
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from pprint import pprint

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select, update

from headend.access import Access
from headend.errors import ConfigError, NoAccess, StoreError, UsageError
from headend.keyring import Entry, activate, drop, put_entries, put_pending, remove, reseal_all
from headend.masterkey import MasterKey, load_master_key, new_master_key, read_master_key
from headend.model import Meter
from headend.store import Store, open_store, schema, secrets
from headend.store.registry import MeterRow, meters
from headend.vault import HIGHEST, Vault
from tests.helpers import registered

RAW = bytes(range(32))
KEY, OTHER = MasterKey(RAW), MasterKey(bytes(32))
NOW = datetime(2026, 3, 1, tzinfo=UTC)
GUEK = bytes.fromhex("000102030405060708090A0B0C0D0E0F")
PASSWORD = b"s3cret-pa55word"


def rows_of(store: Store) -> dict[str, MeterRow]:
    with store.read() as conn:
        return {row.id: row for row in meters(conn)}


def give(store: Store, meter: Meter, **values: bytes) -> None:
    row = rows_of(store)[meter.id]
    put_entries(store, KEY, [Entry(row, name, value) for name, value in values.items()], NOW)


# -- the master key ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        RAW.hex(),
        RAW.hex().upper() + "\n",
        base64.b64encode(RAW).decode(),
        base64.urlsafe_b64encode(b"\xfb\xff" * 16).decode(),
        base64.b64encode(RAW).decode().rstrip("="),
    ],
)
def test_a_master_key_is_hex_or_base64(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("MASTER", text)
    key = load_master_key("MASTER", None)
    assert key is not None
    assert (key.id == KEY.id) == ("-" not in text and "_" not in text)


@pytest.mark.parametrize("text", ["short", RAW.hex()[:-2], RAW.hex() + "00", "zz" * 32, "ключ" * 8, "A" * 45])
def test_what_is_no_master_key_is_refused_without_repeating_it(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("MASTER", text)
    with pytest.raises(ConfigError, match="environment variable MASTER: holds no master key of 32 bytes") as refused:
        load_master_key("MASTER", None)
    assert text not in str(refused.value)


def test_no_master_key_at_all_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASTER", raising=False)
    assert load_master_key("MASTER", None) is None
    monkeypatch.setenv("MASTER", " ")
    assert load_master_key("MASTER", None) is None


def test_a_new_master_key_file_is_its_owners_alone_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    made = new_master_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_master_key(path).id == made.id
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="is there already and is not overwritten"):
        new_master_key(path)
    assert path.read_bytes() == before
    assert new_master_key(tmp_path / "second.key").id != made.id


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o644, 0o660, 0o666])
def test_a_file_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "master.key"
    new_master_key(path)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=rf"others than its owner can read it \(mode {mode:04o}\) -> chmod 600"):
        read_master_key(path)
    path.chmod(0o400)
    assert read_master_key(path)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"can't be read: No such file.*headend keys init"):
        load_master_key("MASTER", tmp_path / "none.key")


# -- secrets -----------------------------------------------------------------------------------------------------------


def test_secrets_come_back_and_lie_sealed(store: Store) -> None:
    (meter,) = registered(store)
    give(store, meter, encryption_key=GUEK, password=PASSWORD)
    access = Vault(store, KEY).access(meter)
    assert dict(access.secrets) == {"encryption_key": GUEK, "password": PASSWORD}
    with store.read() as conn:
        sealed = [bytes(row.sealed) for row in conn.execute(select(schema.secret))]
    assert all(GUEK not in text and PASSWORD not in text for text in sealed)
    give(store, meter, password=PASSWORD + b"2")
    with store.read() as conn:
        assert [(r.name, r.generation, r.state) for r in secrets.secrets(conn)] == [
            ("encryption_key", 1, "active"),
            ("password", 1, "retired"),
            ("password", 2, "active"),
        ]


def test_the_same_value_is_sealed_differently_each_time() -> None:
    assert KEY.seal("M", "password", 1, PASSWORD) != KEY.seal("M", "password", 1, PASSWORD)


@given(st.integers(0, 200), st.integers(0, 7))
@settings(max_examples=100, deadline=None)
def test_a_changed_bit_opens_nothing(position: int, bit: int) -> None:
    sealed = bytearray(KEY.seal("M", "password", 1, PASSWORD))
    sealed[position % len(sealed)] ^= 1 << bit
    with pytest.raises(NoAccess):
        KEY.open("M", "password", 1, bytes(sealed))


@pytest.mark.parametrize("place", [("N", "password", 1), ("M", "encryption_key", 1), ("M", "password", 2)])
def test_what_is_moved_elsewhere_does_not_open(place: tuple[str, str, int]) -> None:
    sealed = KEY.seal("M", "password", 1, PASSWORD)
    assert KEY.open("M", "password", 1, sealed) == PASSWORD
    with pytest.raises(NoAccess, match="does not open: it was changed in the store, or is another's"):
        KEY.open(*place, sealed)


def test_names_do_not_run_into_each_other() -> None:
    sealed = KEY.seal("M1", "2password", 1, PASSWORD)
    with pytest.raises(NoAccess):
        KEY.open("M12", "password", 1, sealed)


def test_swapped_rows_are_noticed(store: Store) -> None:
    first, second = registered(store, 2)
    give(store, first, password=b"one")
    give(store, second, password=b"two")
    with store.write() as conn:
        by_meter = {row.meter_key: bytes(row.sealed) for row in conn.execute(select(schema.secret))}
        for mine, theirs in ((first, second), (second, first)):
            changed = update(schema.secret).where(schema.secret.c.meter_key == mine.key)
            conn.execute(changed.values(sealed=by_meter[theirs.key]))
    vault = Vault(store, KEY)
    with pytest.raises(NoAccess, match=f"the secret password of meter {first.id} does not open"):
        vault.access(first).secrets["password"]
    assert len(vault.problems()) == 2


def test_without_secrets_no_master_key_is_needed(store: Store) -> None:
    (meter,) = registered(store)
    vault = Vault(store, None)
    vault.load([meter])
    access = vault.access(meter)
    assert access.secrets.get("password") is None
    assert len(access.secrets) == 0
    assert access.counter("tx").take() < access.counter("tx").take()
    assert vault.problems() == []


@pytest.mark.parametrize("loaded", [False, True])
def test_a_missing_or_wrong_master_key_is_named_when_a_secret_is_wanted(store: Store, loaded: bool) -> None:
    first, second = registered(store, 2)
    give(store, first, password=PASSWORD)
    for master, words in ((None, r"no master key \(file master.key\)"), (OTHER, OTHER.id.hex())):
        vault = Vault(store, master, named="file master.key")
        if loaded:
            vault.load([first, second])
        access = vault.access(first)
        for wanted in (
            lambda a: a.secrets["password"],
            lambda a: a.secrets.get("password"),
            lambda a: "password" in a.secrets,
        ):
            with pytest.raises(NoAccess, match=words):
                wanted(access)
        assert vault.access(second).secrets.get("password") is None
        (problem,) = vault.problems()
        assert "master key" in str(problem)


def test_changes_are_noticed_by_a_running_vault(store: Store) -> None:
    (meter,) = registered(store)
    vault = Vault(store, KEY)
    vault.load([meter])
    assert vault.access(meter).secrets.get("password") is None
    give(store, meter, password=b"one")
    assert vault.access(meter).secrets.get("password") is None
    vault.refresh()
    kept = vault.access(meter)
    assert kept.secrets["password"] == b"one"
    vault.refresh()
    assert vault.access(meter) is kept


def test_generations_are_pending_active_retired(store: Store) -> None:
    (meter,) = registered(store)
    row = rows_of(store)[meter.id]
    give(store, meter, password=b"one")

    def used() -> bytes:
        return Vault(store, KEY).access(meter).secrets["password"]

    assert put_pending(store, KEY, Entry(row, "password", b"two"), NOW) == 2
    assert used() == b"one"
    with pytest.raises(UsageError, match="is pending already"):
        put_pending(store, KEY, Entry(row, "password", b"three"), NOW)
    assert activate(store, row, "password", NOW) == 2
    assert used() == b"two"
    assert activate(store, row, "password", NOW, generation=1) == 1
    assert used() == b"one"
    with pytest.raises(UsageError, match="is active"):
        drop(store, row, "password", 1)
    assert drop(store, row, "password", 2) == 2
    with pytest.raises(UsageError, match="has no pending generation"):
        activate(store, row, "password", NOW)
    assert remove(store, row) == 1
    with pytest.raises(UsageError, match="has no secret"):
        remove(store, row)


def test_rotating_the_master_key_is_all_or_nothing(store: Store) -> None:
    first, second = registered(store, 2)
    give(store, first, password=b"one", encryption_key=GUEK)
    give(store, second, password=b"two")
    assert reseal_all(store, KEY, OTHER) == 3
    assert Vault(store, OTHER).access(second).secrets["password"] == b"two"
    assert "another master key" in str(Vault(store, KEY).problems()[0])
    with pytest.raises(UsageError, match="sealed under another master key"):
        give(store, first, password=b"three")
    with store.write() as conn:
        conn.execute(update(schema.secret).where(schema.secret.c.meter_key == second.key).values(sealed=b"\1" * 60))
    with store.read() as conn:
        before = [bytes(row.sealed) for row in conn.execute(select(schema.secret).order_by(schema.secret.c.key))]
    with pytest.raises((NoAccess, UsageError)):
        reseal_all(store, OTHER, KEY)
    with store.read() as conn:
        assert before == [bytes(r.sealed) for r in conn.execute(select(schema.secret).order_by(schema.secret.c.key))]


def test_a_damaged_secret_can_be_imported_again(store: Store) -> None:
    (meter,) = registered(store)
    give(store, meter, password=b"one")
    with store.write() as conn:
        sealed = KEY.seal(meter.id, "password", 1, b"one")
        conn.execute(update(schema.secret).values(sealed=sealed[:-1] + bytes((sealed[-1] ^ 1,))))
    with pytest.raises(NoAccess):
        Vault(store, KEY).access(meter).secrets["password"]
    give(store, meter, password=b"one")
    assert Vault(store, KEY).access(meter).secrets["password"] == b"one"


# -- nothing is shown --------------------------------------------------------------------------------------------------


def hidden_in(text: str, secret: bytes) -> bool:
    forms = [secret.hex(), secret.hex(" "), base64.b64encode(secret).decode().rstrip("="), repr(secret)[2:-1]]
    return not any(form.lower() in text.lower() for form in forms)


def test_reprs_and_logs_show_no_secret(sqlite_store: Store, caplog: pytest.LogCaptureFixture) -> None:
    (meter,) = registered(sqlite_store)
    give(sqlite_store, meter, encryption_key=GUEK, password=PASSWORD)
    vault = Vault(sqlite_store, KEY)
    vault.load([meter])
    access = vault.access(meter)
    entry = Entry(rows_of(sqlite_store)[meter.id], "password", PASSWORD)
    with sqlite_store.read() as conn:
        sealed = secrets.secrets(conn)
    told = io.StringIO()
    with redirect_stdout(told):
        for thing in (access, access.secrets, vault, KEY, entry, sealed, access.counter("tx"), vars(vault)):
            pprint(thing)
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("headend").debug("%s %r %s", access, access.secrets, vault)
    for text in (told.getvalue(), caplog.text):
        assert "secret" in text
        assert hidden_in(text, GUEK)
        assert hidden_in(text, PASSWORD)
        assert hidden_in(text, RAW)


# -- counters ----------------------------------------------------------------------------------------------------------


def test_numbers_rise_and_go_on_after_an_orderly_end(store: Store) -> None:
    (meter,) = registered(store)
    counter = Vault(store, None, block=10).access(meter).counter("tx")
    assert counter.value == 1
    taken = [counter.take() for _ in range(35)]
    assert taken == list(range(1, 36))
    again = Vault(store, None, block=10).access(meter).counter("tx")
    assert again.value == again.take() == 41


def test_a_block_is_committed_before_its_first_number_is_given(store: Store) -> None:
    (meter,) = registered(store)
    counter = Vault(store, None, block=10).access(meter).counter("tx")
    for _ in range(25):
        taken = counter.take()
        with store.read() as conn:
            assert secrets.counters(conn)[meter.key, "tx"] > taken


def test_no_number_is_given_when_the_store_refuses(sqlite_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    (meter,) = registered(sqlite_store)
    counter = Vault(sqlite_store, None, block=2).access(meter).counter("tx")
    assert [counter.take(), counter.take()] == [1, 2]
    with monkeypatch.context() as broken:
        broken.setattr(secrets, "reserve", _refused)
        with pytest.raises(StoreError):
            counter.take()
        with pytest.raises(StoreError):
            counter.raise_to(100)
    assert counter.take() == 100


def _refused(*_args: object, **_named: object) -> int:
    raise StoreError("disk full")


def test_raising_beyond_the_block_is_committed_before_it_returns(store: Store) -> None:
    (meter,) = registered(store)
    counter = Vault(store, None, block=10).access(meter).counter("tx")
    counter.raise_to(5)
    assert counter.take() == 5
    counter.raise_to(3)
    assert counter.take() == 6
    counter.raise_to(5000)
    with store.read() as conn:
        assert secrets.counters(conn)[meter.key, "tx"] > 5000
    assert counter.value == counter.take() == 5000
    assert Vault(store, None).access(meter).counter("tx").take() > 5000


def test_counters_of_meters_and_names_are_apart(store: Store) -> None:
    first, second = registered(store, 2)
    vault = Vault(store, None)
    vault.access(first).counter("tx").raise_to(70)
    assert vault.access(first).counter("tx 102").take() == 1
    assert vault.access(second).counter("tx").take() == 1
    assert vault.access(first).counter("tx").take() == 70


def test_a_counter_ends_at_four_bytes(store: Store) -> None:
    (meter,) = registered(store)
    counter = Vault(store, None, block=10).access(meter).counter("tx")
    counter.raise_to(HIGHEST)
    assert counter.take() == HIGHEST
    with pytest.raises(NoAccess, match="its key is used up"):
        counter.take()
    with pytest.raises(NoAccess, match="its key is used up"):
        counter.raise_to(HIGHEST + 1)


def test_received_numbers_are_kept_lazily_and_never_lowered(store: Store) -> None:
    (meter,) = registered(store)
    vault, beside = Vault(store, None), Vault(store, None)
    vault.access(meter).counter("rx").raise_to(500)
    beside.access(meter).counter("rx").raise_to(200)
    vault.flush()
    beside.flush()
    beside.refresh()
    again = Vault(store, None).access(meter).counter("rx")
    assert again.value == 500
    again.raise_to(100)
    assert again.value == 500
    with pytest.raises(TypeError):
        again.take()


def test_received_numbers_wait_for_a_store_that_fails(sqlite_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    (meter,) = registered(sqlite_store)
    vault = Vault(sqlite_store, None)
    vault.access(meter).counter("rx").raise_to(9)
    with monkeypatch.context() as broken:
        broken.setattr(secrets, "raise_counters", _refused)
        with pytest.raises(StoreError):
            vault.flush()
    vault.flush()
    assert Vault(sqlite_store, None).access(meter).counter("rx").value == 9


def test_loading_reserves_for_all_known_meters_at_once(store: Store) -> None:
    many = registered(store, 5)
    before = Vault(store, None, block=10)
    for meter in many[:3]:
        before.access(meter).counter("tx").take()
    vault = Vault(store, None, block=10)
    vault.load(many)
    with store.read() as conn:
        stand = secrets.counters(conn)
    assert stand == {(meter.key, "tx"): 21 for meter in many[:3]}
    assert [vault.access(meter).counter("tx").take() for meter in many] == [11, 11, 11, 1, 1]


def test_a_low_counter_is_filled_before_the_job(store: Store) -> None:
    (meter,) = registered(store)
    vault = Vault(store, None, block=200)
    vault.load([meter])

    async def main() -> list[int]:
        counter = (await vault.ready(meter)).counter("tx")
        taken = [counter.take() for _ in range(150)]
        await vault.ready(meter)
        with store.read() as conn:
            assert secrets.counters(conn)[meter.key, "tx"] == 401
        taken += [counter.take() for _ in range(250)]
        with store.read() as conn:
            assert secrets.counters(conn)[meter.key, "tx"] == 401
        return taken

    assert asyncio.run(main()) == list(range(1, 401))


# What can happen to two programs on one store: take some numbers, be told the meter's counter, fetch ahead, be killed.
_STEP = st.tuples(st.integers(0, 1), st.sampled_from(["take", "raise", "ready", "kill"]), st.integers(0, 60))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Meter]]:
    opened = open_store(f"sqlite:///{tmp_path_factory.mktemp('shared')}/headend.db")
    (meter,) = registered(opened)
    yield opened, meter
    opened.close()


@given(st.lists(_STEP, max_size=40))
@settings(max_examples=40, deadline=None)
def test_numbers_never_repeat_over_kills_and_two_writers(
    shared: tuple[Store, Meter], steps: list[tuple[int, str, int]]
) -> None:
    store, meter = shared
    with store.write() as conn:
        conn.execute(delete(schema.counter))
    vaults = [Vault(store, None, block=7), Vault(store, None, block=7)]
    given_out: set[int] = set()
    last = [0, 0]
    for who, what, amount in steps:
        counter = vaults[who].access(meter).counter("tx")
        if what == "kill":  # nothing is flushed, nothing is said
            vaults[who], last[who] = Vault(store, None, block=7), 0
        elif what == "raise":
            counter.raise_to(amount * 10)
            last[who] = max(last[who], amount * 10 - 1)
        elif what == "ready":
            asyncio.run(vaults[who].ready(meter))
        else:
            for _ in range(amount % 12):
                number = counter.take()
                assert number not in given_out
                assert number > last[who]
                given_out.add(number)
                last[who] = number


def test_threads_of_one_program_share_a_counter(store: Store) -> None:
    (meter,) = registered(store)
    vault = Vault(store, None, block=20)
    taken: list[list[int]] = [[] for _ in range(4)]

    def work(mine: list[int]) -> None:
        counter = vault.access(meter).counter("tx")
        for turn in range(60):
            mine.append(counter.take())
            if turn % 10 == 0:
                asyncio.run(vault.ready(meter))

    threads = [threading.Thread(target=work, args=(mine,)) for mine in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    everything = [number for mine in taken for number in mine]
    assert len(set(everything)) == len(everything) == 240
    assert all(a < b for mine in taken for a, b in pairwise(mine))


_TAKER = textwrap.dedent(
    """
    import os, sys
    from headend.model import Meter, MeterModel
    from headend.store import open_store
    from headend.vault import Vault
    from tests.helpers import make_meter
    store = open_store(sys.argv[1])
    counter = Vault(store, None, block=50).access(make_meter(int(sys.argv[2]))).counter("tx")
    out = os.open(sys.argv[3], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    while True:
        os.write(out, b"%d\\n" % counter.take())
    """
)


def test_kill_minus_nine_gives_no_number_twice(store_url: str, tmp_path: Path) -> None:
    """Two programs at a time on one store, killed at any moment, ten of them in all."""
    store = open_store(store_url)
    (meter,) = registered(store)
    store.close()
    files = [tmp_path / f"taken{n}" for n in range(10)]

    def start(file: Path) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-c", _TAKER, store_url, str(meter.key), str(file)]
        return subprocess.Popen(words, cwd=Path(__file__).parent.parent, env={**os.environ, "PYTHONPATH": "."})

    running = [(files[0], start(files[0]))]
    for turn, file in enumerate(files[1:]):
        running.append((file, start(file)))
        own, oldest = running.pop(0)
        wait_for(own)
        time.sleep(0.02 * (turn % 4))  # killed somewhere in its work, the other one beside it or starting
        kill(oldest)
    wait_for(running[0][0])
    kill(running[0][1])
    numbers = [int(line) for file in files for line in file.read_text().splitlines()]
    assert len(numbers) > 500
    assert len(set(numbers)) == len(numbers)


def kill(process: subprocess.Popen[bytes]) -> None:
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()


def wait_for(file: Path, wait_s: float = 30.0) -> None:
    """Wait until another process has written a number; it tells nobody when it does."""
    end = time.monotonic() + wait_s
    while not file.exists() or not file.stat().st_size:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_memos_are_shared_by_the_meters_of_a_model(sqlite_store: Store) -> None:
    first, second = registered(sqlite_store, 2)
    vault = Vault(sqlite_store, None)
    vault.access(first).memo["scaler", "1.0.1.8.0.255"] = Decimal(10)
    assert vault.access(second).memo["scaler", "1.0.1.8.0.255"] == Decimal(10)


def test_access_is_cheap(sqlite_store: Store) -> None:
    """Every job asks for it: a small share of the 100 µs an exchange costs. A bound far above the figure measured."""
    many = registered(sqlite_store, 200)
    vault = Vault(sqlite_store, KEY)
    vault.load(many)

    async def spent_s(rounds: int) -> float:
        started = time.perf_counter()
        for _ in range(rounds):
            for meter in many:
                await vault.ready(meter)
        return (time.perf_counter() - started) / rounds / len(many)

    access: Access = asyncio.run(vault.ready(many[0]))
    assert len(access.secrets) == 0
    assert min(asyncio.run(spent_s(20)) for _ in range(5)) < 20e-6
