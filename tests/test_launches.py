"""Kernels and bytes of benchmarks/launches.py, counted by hand."""

import sys
from pathlib import Path

import pytest

from goracs_jax.ahead.topology import ENVIRONMENT

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
#: A loop of three rounds, and one whose rounds are not known, with a kernel each; the
#: first one slices a large array.
TEXT = """
%sliced (x: f32[100,4], i: s32[]) -> f32[1,4] {
  %x = f32[100,4]{1,0} parameter(0)
  %i = s32[] parameter(1)
  ROOT %y = f32[1,4]{1,0} dynamic-slice(%x, %i), dynamic_slice_sizes={1,4}
}

%test (p: (s32[])) -> pred[] {
  ROOT %less = pred[] parameter(0)
}

%known (p: (f32[100,4], s32[])) -> f32[1,4] {
  %large = f32[100,4]{1,0} parameter(0)
  %at = s32[] parameter(1)
  ROOT %row = f32[1,4]{1,0} fusion(%large, %at), kind=kLoop, calls=%sliced
}

%open (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  ROOT %sort = f32[8]{0} sort(%p), to_apply=%test
}

ENTRY %main (a: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  %b = f32[8]{0} copy(%a)
  %one = f32[1,4]{1,0} while(%b), condition=%test, body=%known, \
backend_config={"known_trip_count":{"n":"3"}}
  ROOT %two = f32[8]{0} while(%b), condition=%test, body=%open
}
"""


@pytest.fixture
def launches(monkeypatch):
    for name, value in ENVIRONMENT.items():  # which the script sets
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(BENCHMARKS)
    import launches

    yield launches
    sys.modules.pop("launches")


def test_kernels_and_bytes_of_loops(launches):
    found = launches.parts(TEXT)
    # Copied: 32 bytes twice. Thrice: a row is read, with its place, and written.
    assert found[:2] == (1 + 3, 64 + 3 * (16 + 4 + 16))
    assert found.loops == (launches.Part(1, 64),)
    assert launches.once(found, {0: (5, {})}) == (4 + 5, 172 + 5 * 64)


def test_loops_inside_of_loops(launches):
    inner = launches.Part(1, 8)
    outer = launches.Part(2, 0, (launches.Part(3, 0, (inner,)),))
    assert launches.once(outer, {0: (10, {0: (5, {})})}) == (82, 400)
