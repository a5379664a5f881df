"""Tariffs in the store: kept once, never changed under their version, compared, and enough to bill from."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from billing.charges import Tariff
from billing.versions import check_versions, difference, store_versions, versions
from config.tariff_files import load_tariff, load_tariffs, tariff_from_text
from headend.errors import ConfigError
from headend.store import open_store
from tests.tariff_kit import headend

SHIPPED = Path(__file__).parents[1] / "config" / "tariffs"
FIRST = datetime(2026, 1, 1, tzinfo=UTC)
LATER = datetime(2026, 3, 1, tzinfo=UTC)


def changed(folder: Path, name: str, *pairs: tuple[str, str]) -> Tariff:
    """A shipped tariff with parts of its text replaced, in a file of its own name."""
    text = (SHIPPED / f"{name}.toml").read_text(encoding="utf-8")
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    return load_tariff(folder / f"{name}.toml")


def test_texts_are_kept_once_and_give_every_tariff_back(tmp_path: Path) -> None:
    shipped = load_tariffs(SHIPPED)
    store = open_store(f"sqlite:///{tmp_path / 'a.db'}")
    with store.write() as conn:
        new, known = store_versions(conn, shipped, FIRST)
        assert (len(new), known) == (len(shipped), [])
        assert store_versions(conn, shipped[:3], LATER) == ([], shipped[:3])
    with store.read() as conn:
        for one in shipped:
            (kept,) = versions(conn, one.id)
            assert (kept.sha, kept.version, kept.stored_at) == (one.sha, one.version, FIRST)
            assert tariff_from_text(kept.text) == one
        assert versions(conn, "nothing") == []
    store.close()


def test_a_text_changed_under_its_version_is_refused_and_nothing_is_stored(tmp_path: Path) -> None:
    old = load_tariff(SHIPPED / "example-flat.toml")
    same_version = changed(tmp_path, "example-flat", ('"0.6425"', '"0.65"'))
    other = load_tariff(SHIPPED / "example-commercial-tou.toml")
    store = open_store(f"sqlite:///{tmp_path / 'a.db'}")
    with store.write() as conn:
        store_versions(conn, [old], FIRST)
    with store.write() as conn:
        assert check_versions(conn, [old, other]) == []
        (problem,) = check_versions(conn, [same_version, other])
        assert problem.where == "tariff example-flat"
        assert problem.what == "version '1' was changed after it was stored on 2026-01-01"
        assert problem.remedy.startswith("give it a new version")
        with pytest.raises(ConfigError):
            store_versions(conn, [other, same_version], LATER)
    with store.read() as conn:
        assert versions(conn, other.id) == []
        assert [one.sha for one in versions(conn, old.id)] == [old.sha]
    store.close()


def test_a_new_version_is_kept_beside_the_old_one_and_compared(tmp_path: Path) -> None:
    old = load_tariff(SHIPPED / "example-flat.toml")
    new = changed(tmp_path, "example-flat", ('"0.6425"', '"0.65"'), ('version = "1"', 'version = "2"'))
    store = open_store(f"sqlite:///{tmp_path / 'a.db'}")
    with store.write() as conn:
        store_versions(conn, [old], FIRST)
        store_versions(conn, [new], LATER)
        first, second = versions(conn, "example-flat")
    store.close()
    lines = list(difference(first, second))
    assert lines[:2] == ["--- example-flat@1", "+++ example-flat@2"]
    marked = [line for line in lines[2:] if line[0] in "+-"]
    assert marked == ['-version = "1"', '+version = "2"', '-price = "0.6425"', '+price = "0.65"']
    assert list(difference(first, first)) == []


def test_the_verbs(tmp_path: Path) -> None:
    site = '[site]\nname = "s"\n[[line]]\nname = "L1"\nendpoint = "tcp://127.0.0.1:5001"\n'
    (tmp_path / "site.toml").write_text(site, encoding="utf-8")
    own = tmp_path / "tariffs"
    own.mkdir()
    text = (SHIPPED / "example-flat.toml").read_text(encoding="utf-8").replace("example-flat", "own")
    (own / "own.toml").write_text(text.replace("valid_from", "valid_to = 2026-07-01\nvalid_from"), encoding="utf-8")
    assert "new    own version 1" in headend(tmp_path, "load")
    assert "0 new" in headend(tmp_path, "load")
    later = text.replace('version = "1"', 'version = "2"').replace("2020-01-01", "2026-07-01").replace("0.64", "0.7")
    (own / "own@2.toml").write_text(later, encoding="utf-8")
    assert "1 new" in headend(tmp_path, "load")
    assert [one["version"] for one in json.loads(headend(tmp_path, "versions", "own", "--json"))] == ["1", "2"]
    lines = headend(tmp_path, "diff", "own", "1", "2").splitlines()
    assert '-price = "0.6425"' in lines
    assert '+price = "0.725"' in lines
    assert "did you mean 2" in headend(tmp_path, "diff", "own", "1", "22", fails=True)
    assert "the store holds no tariff 'none'" in headend(tmp_path, "versions", "none", fails=True)
    (own / "own@2.toml").write_text(later.replace("0.725", "0.726"), encoding="utf-8")
    assert "version '2' was changed after it was stored" in headend(tmp_path, "load", fails=True)
