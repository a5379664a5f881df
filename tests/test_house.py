"""The house is in order: verbs and keys documented, files small, docs true, nothing of this machine in the tree."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from headend.cli.reference import reference
from headend.protocols import PROTOCOLS
from headend.quantities import BY_DI, QUANTITIES, Kind

ROOT = Path(__file__).parent.parent
CODE = [path for folder in ("headend", "billing", "config", "simulators") for path in (ROOT / folder).rglob("*.py")]


def test_every_verb_is_in_the_reference_as_it_is() -> None:
    assert (ROOT / "docs" / "cli.md").read_text("utf-8") == reference(), (
        "run: python -m headend.cli.reference > docs/cli.md"
    )


def test_files_stay_small() -> None:
    long = {str(path.relative_to(ROOT)): lines for path in CODE if (lines := len(path.read_text().splitlines())) > 450}
    assert long == {}


def test_links_in_the_docs_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "config").rglob("*.md")]
    assert len(pages) > 8
    for page in pages:
        for target in re.findall(r"\]\((?!http)([^)#]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_room_of_the_architecture_exists() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    named = set(re.findall(r"\b([a-z_]+)\.py\b", text))
    there = {path.stem for path in CODE}
    assert named <= there
    rooms = {path.parent.name for path in CODE if path.parent.parent == ROOT / "headend"}
    assert {room for room in rooms if f"{room}/" not in text} == set()


def test_nothing_of_one_machine_is_in_the_tree() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    pattern = re.compile(r"/(?:ro{2}t|wo[r]k|far[m])/[a-z.]")
    for name in filter(None, listed):
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".csv", ".jsonl", ".json", ""} and path.is_file():
            found = pattern.search(path.read_text("utf-8"))
            assert found is None, f"{name}: {found}"


def test_quantities_are_one_table_without_doubles() -> None:
    dis = [q.di for q in QUANTITIES.values() if q.di]
    assert len(dis) == len(set(dis)) == len(BY_DI)
    assert all(re.fullmatch(r"[0-9A-F]{8}", di) for di in dis)
    obis = [q.obis for q in QUANTITIES.values() if q.obis]
    assert len(obis) > 50
    assert all(re.fullmatch(r"\d-\d:\d+\.\d+\.\d+", text) for text in obis)
    for quantity in QUANTITIES.values():
        assert (quantity.kind is Kind.INTERVAL) == bool(quantity.register)
        assert not quantity.register or QUANTITIES[quantity.register].kind is Kind.REGISTER


def test_protocols_are_known_by_their_own_name() -> None:
    assert all(name == driver.name for name, driver in PROTOCOLS.items())
