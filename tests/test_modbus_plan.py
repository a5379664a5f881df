"""Which reads bring a set of registers: all of them, within every limit, and no more than need be."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from headend.protocols.modbus.model import Register, RegisterMap
from headend.protocols.modbus.plan import Request, plan, wanted


def _map(*spans: tuple[int, int], function: int = 3, **limits: object) -> RegisterMap:
    registers = tuple(
        Register(f"r{address}", address, function=function, words=size, type="ascii") for address, size in spans
    )
    return RegisterMap(registers, **limits)  # type: ignore[arg-type]


def _shape(requests: tuple[Request, ...]) -> list[tuple[int, int]]:
    return [(one.address, one.count) for one in requests]


def test_neighbours_come_in_one_read() -> None:
    registers = _map((0, 2), (2, 2), (4, 4))
    assert _shape(plan(registers, registers.registers)) == [(0, 8)]


def test_a_gap_is_read_along_as_far_as_allowed() -> None:
    spans = ((0, 2), (4, 2), (9, 2))
    assert _shape(plan(_map(*spans), _map(*spans).registers)) == [(0, 2), (4, 2), (9, 2)]
    registers = _map(*spans, gap=2)
    assert _shape(plan(registers, registers.registers)) == [(0, 6), (9, 2)]
    assert _shape(plan(registers, registers.registers, gap=0)) == [(0, 2), (4, 2), (9, 2)]


def test_no_read_is_longer_than_the_meter_takes() -> None:
    registers = _map(*((2 * n, 2) for n in range(6)), max_registers=5)
    assert _shape(plan(registers, registers.registers)) == [(0, 4), (4, 4), (8, 4)]


def test_no_read_reaches_across_a_boundary() -> None:
    registers = _map((0, 2), (2, 2), (4, 2), boundaries=(2,))
    assert _shape(plan(registers, registers.registers)) == [(0, 2), (2, 4)]


def test_functions_are_read_apart_and_bits_may_be_many() -> None:
    bits = tuple(Register(f"b{n}", n, function=2, type="bool") for n in range(500))
    registers = RegisterMap((*bits, Register("x", 0, function=3), Register("y", 0, function=4)), max_registers=10)
    requests = plan(registers, registers.registers)
    assert [(one.function, one.address, one.count) for one in requests] == [(2, 0, 500), (3, 0, 1), (4, 0, 1)]


def test_parts_of_one_register_are_read_once() -> None:
    low, high = (Register(name, 7, bits=bits) for name, bits in (("low", (0, 8)), ("high", (8, 8))))
    assert _shape(plan(RegisterMap((low, high)), (low, high))) == [(7, 1)]


def test_a_scale_register_comes_along_and_unknown_names_are_told() -> None:
    registers = RegisterMap((Register("w", 0, scale_register="w_sf"), Register("w_sf", 4)))
    found, unknown = wanted(registers, ("w", "v", "w"))
    assert [one.name for one in found] == ["w", "w_sf"]
    assert unknown == ("v",)


@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(1, 4)), min_size=1, max_size=40),
    st.integers(4, 30),
    st.integers(0, 6),
    st.lists(st.integers(1, 300), max_size=4),
)
def test_every_plan_keeps_its_limits_and_brings_everything(
    spans: list[tuple[int, int]], most: int, gap: int, edges: list[int]
) -> None:
    edges = [edge for edge in edges if not any(start < edge < start + size for start, size in spans)]
    registers = _map(
        *{start: (start, size) for start, size in spans}.values(),
        max_registers=most,
        gap=gap,
        boundaries=tuple(sorted(edges)),
    )
    requests = plan(registers, registers.registers)
    brought = [one for request in requests for one in request.registers]
    assert sorted(one.name for one in brought) == sorted(one.name for one in registers.registers)
    for request in requests:
        assert request.count <= most
        assert not any(request.address < edge < request.end for edge in edges)
        assert all(request.address <= one.address and one.end <= request.end for one in request.registers)
        covered = {n for one in request.registers for n in range(one.address, one.end)}
        assert {request.address, request.end - 1} <= covered
        ordered = sorted(covered)
        assert all(b - a <= gap + 1 for a, b in itertools.pairwise(ordered))
    for first, second in itertools.pairwise(requests):
        whole = second.registers[0].end - first.address  # the next one would not have fitted
        reach = second.address - first.end
        crossed = any(first.address < edge < second.registers[0].end for edge in edges)
        assert whole > most or reach > gap or crossed
