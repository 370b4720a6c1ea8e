"""Names of topologies, and the target that the compiler of GPUs reads."""

import re

import pytest

from goracs_jax.ahead.gpu_target import TARGETS, target_text
from goracs_jax.ahead.topology import Topology, no_compiler, parse
from goracs_jax.devices import GB, KINDS, cpu, kind_of
from goracs_jax.errors import InputError


@pytest.mark.parametrize(
    ("name", "devices", "memory"),
    [
        ("v5e:16x16", 256, 16 * GB),
        ("v6e:8x8", 64, 32 * GB),
        ("v5p:4x4x4", 64, 95 * GB),
        ("tpu7x:2x2x1", 8, 96 * 2**30),
        ("h100:8", 8, 80 * GB),
        ("h200:16", 16, 141 * GB),
    ],
)
def test_devices_and_their_memory(name, devices, memory):
    found = parse(name)
    assert (found.name, found.devices, found.kind.memory) == (name, devices, memory)


@pytest.mark.parametrize(
    "name", ["", "v5e", "v5e:", "v5e:0x4", "h100:-1", "h100:2x4", "v5p:4x4"]
)
def test_other_names_are_refused(name):
    with pytest.raises(InputError, match="--topology"):
        parse(name)


@pytest.mark.parametrize(
    ("seen", "name"),
    [
        ("TPU v4", "v4"),
        ("TPU v5 lite", "v5e"),
        ("TPU v5", "v5p"),
        ("TPU v5p", "v5p"),
        ("TPU v6 lite", "v6e"),
        ("TPU7x", "tpu7x"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA H200", "h200"),
    ],
)
def test_what_jax_calls_a_kind(seen, name):
    assert kind_of(seen).name == name


@pytest.mark.parametrize(
    "seen",
    ["NVIDIA H100 PCIe", "NVIDIA H100 NVL", "NVIDIA A100-PCIE-40GB", "NVIDIA GH200"],
)
def test_another_kind_of_the_same_name_is_not_known(seen):
    with pytest.raises(InputError, match=f"no device '{seen}' is known"):
        kind_of(seen)


def test_every_kind_is_plausible():
    for kind in [*KINDS.values(), cpu(2, 8 * GB)]:
        low, high = kind.dollars
        assert 0 < low <= high
        assert kind.float32 <= kind.bfloat16
        # The FLOPs that a device does for each byte from its memory.
        assert 1 < kind.bfloat16 / kind.bandwidth < 1000


@pytest.mark.parametrize("name", TARGETS)
def test_targets_are_whole(name):
    text = target_text(kind_of(name))
    assert text.count("{") == text.count("}")
    assert re.search(rf"device_memory_size: {kind_of(name).memory}$", text, re.M)


def test_why_nothing_can_be_compiled():
    assert no_compiler(parse("b200:8")) == "there is no target for the compiler of b200"


def test_devices_at_hand_need_no_description_of_theirs():
    assert no_compiler(parse("a100:1")) is not None
    assert no_compiler(Topology("here", KINDS["a100"], 1)) is None
