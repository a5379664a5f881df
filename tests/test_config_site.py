"""site.toml: what it means, and that any text is loaded or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.engine import make_url

from config.meter_models import SHIPPED_MODELS
from config.site import SHIPPED_TARIFFS, Site, load_site
from config.tables import LineTable, ScheduleTable
from headend.endpoints import Endpoint, LineSettings
from headend.errors import ConfigError
from headend.model import ReadKind
from headend.scheduler.settings import Schedule

EXAMPLE = Path(__file__).parent.parent / "docs" / "example-site" / "site.toml"
REFERENCE = Path(__file__).parent.parent / "docs" / "site.md"

SITE = '[site]\nname = "Town"\n'
LINE = '[[line]]\nname = "east"\nendpoint = "tcp://192.0.2.1:4001"\n'


def _load(folder: Path, text: str) -> Site:
    path = folder / "site.toml"
    path.write_text(text, encoding="utf-8")
    return load_site(path)


def _refusals(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        _load(folder, text)
    return [str(problem) for problem in caught.value.problems]


# What it means


def test_the_example_loads_clean() -> None:
    site = load_site(EXAMPLE)
    assert site.path == EXAMPLE
    assert (site.name, site.zone) == ("Example", "Asia/Shanghai")
    assert site.store_url == f"sqlite:///{EXAMPLE.parent}/headend.db"
    assert site.lines == (LineSettings("east", Endpoint("tcp", host="127.0.0.1", port=4001)),)
    assert site.schedules == (
        Schedule("curves", ReadKind.CURVE, ("import_kwh",)),
        Schedule("daily freezes", ReadKind.DAILY_FREEZE, ("import_kwh",)),
        Schedule("clocks", ReadKind.CLOCK, ("clock_offset_s",), every_s=86_400),
    )
    assert site.tariff_folders == (SHIPPED_TARIFFS,)
    assert not (EXAMPLE.parent / "headend.db").exists()  # checking opens nothing


def test_the_smallest_site_has_the_documented_defaults(tmp_path: Path) -> None:
    site = _load(tmp_path, SITE)
    assert (site.zone, site.lines, site.schedules) == ("Asia/Shanghai", (), ())
    assert site.store_url == f"sqlite:///{tmp_path}/headend.db"
    assert (site.evidence.keep_good_every, site.ingest.max_pending, site.ingest.max_batch) == (16, 1000, 200)
    assert set(site.models) == {path.stem for path in SHIPPED_MODELS.glob("*.toml")}


def test_every_key_arrives(tmp_path: Path) -> None:
    (tmp_path / "prices").mkdir()
    (tmp_path / "types").mkdir()
    (tmp_path / "types" / "mine.toml").write_text(
        (SHIPPED_MODELS / "dlt645-2007-1ph.toml").read_text().replace("15.84", "20")
    )
    site = _load(
        tmp_path,
        """\ufeff
        [site]
        name = "小镇"
        zone = "Europe/Berlin"
        store = "sqlite:///data/h.db"
        tariffs = "prices"
        meter_models = "types"
        [[line]]
        name = "east"
        endpoint = "serial:/dev/ttyS1"
        serial = "9600 8N1"
        echo = true
        [[line]]
        name = "west"
        endpoint = "listen://:9000"
        registration = "hex:68 AA"
        heartbeat = "hello"
        reply_s = 10
        gap_s = 1.5
        quiet_s = 0
        connect_s = 60.0
        [[line]]
        name = "north"
        endpoint = "listen://:9000"
        registration = "13900001234"
        [[schedule]]
        name = "now"
        read = "registers"
        quantities = ["import_kwh", "voltage_v_a"]
        every_min = 5
        deadline_min = 10
        lines = ["west"]
        models = ["mine"]
        [[schedule]]
        name = "back"
        read = "curve"
        horizon_days = 7
        settle_s = 90
        [evidence]
        keep_good_every = 1
        [ingest]
        max_pending = 10
        max_batch = 5
        """,
    )
    assert (site.name, site.zone) == ("小镇", "Europe/Berlin")
    assert site.store_url == f"sqlite:///{tmp_path}/data/h.db"
    assert site.tariff_folders == (SHIPPED_TARIFFS, tmp_path / "prices")
    assert "mine" in site.models
    east = Endpoint("serial", device="/dev/ttyS1", baud=9600, bytesize=8, parity="N", stopbits=1)
    west = Endpoint("listen", port=9000)
    assert site.lines == (
        LineSettings("east", east, echo=True),
        LineSettings("west", west, b"\x68\xaa", b"hello", reply_s=10, gap_s=1.5, quiet_s=0, connect_s=60),
        LineSettings("north", west, b"13900001234"),
    )
    assert site.schedules == (
        Schedule(
            "now",
            ReadKind.REGISTERS,
            ("import_kwh", "voltage_v_a"),
            every_s=300,
            deadline_s=600,
            lines=("west",),
            models=("mine",),
        ),
        Schedule("back", ReadKind.CURVE, ("import_kwh",), horizon_days=7, settle_s=90),
    )
    assert (site.evidence.keep_good_every, site.ingest.max_pending, site.ingest.max_batch) == (1, 10, 5)


# The store


def test_secrets_come_from_the_environment_and_are_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADEND_TEST_PASSWORD", "p@ss/wörd:1")
    site = _load(tmp_path, SITE + 'store = "postgresql+psycopg://u:${HEADEND_TEST_PASSWORD}@db:5433/meters"\n')
    url = make_url(site.store_url)
    assert (url.username, url.password, url.host, url.port, url.database) == ("u", "p@ss/wörd:1", "db", 5433, "meters")
    assert "p@ss" not in repr(site)
    assert site.store_url not in repr(site)


def test_a_whole_url_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADEND_TEST_URL", "postgresql://u:p%40ss@db/meters")
    site = _load(tmp_path, SITE + 'store = "${HEADEND_TEST_URL}"\n')
    assert make_url(site.store_url).password == "p@ss"
    assert make_url(site.store_url).drivername == "postgresql+psycopg"


def test_odd_folder_names_survive_the_url(tmp_path: Path) -> None:
    folder = tmp_path / "a b%20?c#d@e"
    folder.mkdir()
    site = _load(folder, SITE)
    assert make_url(site.store_url).database == str(folder / "headend.db")


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("secret-that-is-no-url", "this is no database URL"),
        ("postgresql://u:secret@host:port/db", "this is no database URL"),
        ("postgresql://u:secret@host", "the URL names no database"),
        ("mysql://u:secret@host/db", "only SQLite and PostgreSQL can hold the store"),
        ("sqlite://", "the URL names no SQLite file"),
        ("sqlite:///:memory:", "the URL names no SQLite file"),
    ],
)
def test_store_refusals_echo_no_url(tmp_path: Path, url: str, what: str) -> None:
    remedy = 'write "sqlite:///headend.db" or "postgresql+psycopg://user:${PASSWORD}@host/database"'
    assert _refusals(tmp_path, f'{SITE}store = "{url}"\n') == [f"site.toml: site.store: {what} -> {remedy}"]


def test_a_missing_variable_is_named(tmp_path: Path) -> None:
    assert _refusals(tmp_path, SITE + 'store = "postgresql://u:${HEADEND_NOT_SET}@h/d"\n') == [
        "site.toml: site.store: the environment variable HEADEND_NOT_SET is not set -> "
        "set HEADEND_NOT_SET before starting"
    ]
    assert _refusals(tmp_path, SITE + 'store = "sqlite:///${}"\n') == [
        'site.toml: site.store: "${}" names no environment variable -> write ${NAME} with letters, digits and _'
    ]


@settings(deadline=None, max_examples=60)
@given(
    st.one_of(
        st.text(),
        st.text(alphabet='[]{}="\\\n .,#ax1_-$\'', max_size=60),
        st.builds("{} = {}\n".format, st.sampled_from(["x", *LineTable.model_fields, *ScheduleTable.model_fields]),
                  st.sampled_from(["1", "-1", "1.5", "nan", "true", '"x"', '""', "[]", "[[]]", '["*"]', "{}",
                                   "2026-01-01", '"\\u0000"', '"listen://:1"', "9" * 30, "9" * 5000])),
    )
)  # fmt: skip
def test_any_text_is_loaded_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any-site.toml"
    for head in ("", SITE, f"{SITE}{LINE}", f"{SITE}[[line]]\n", f"{SITE}[[schedule]]\n", f"{SITE}[evidence]\n"):
        path.write_bytes((head + text).encode(errors="surrogatepass"))
        try:
            site = load_site(path)
        except ConfigError as error:
            assert all(problem.where and problem.what for problem in error.problems)  # noqa: PT017
        else:
            assert site.name


def test_every_key_is_in_the_reference() -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    from config.tables import ControlSettings, EvidenceSettings, IngestSettings, SiteTable, VaultSettings

    own = (SiteTable, EvidenceSettings, IngestSettings, VaultSettings, ControlSettings)
    for shape in (*own, LineTable, ScheduleTable):
        for key in shape.model_fields:
            assert f"| `{key}` |" in text, f"{shape.__name__}.{key} is not in docs/site.md"
