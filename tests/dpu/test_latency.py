"""The predicted time of networks: laws that hold for all of them, and cases by hand."""

from __future__ import annotations

import json
import struct
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tutelage.__main__ import main
from tutelage.core.board_profile import board_names
from tutelage.core.fingerprint import ARRAYS, B4096
from tutelage.dpu.compiler.emulation import compile_graph
from tutelage.dpu.compiler.quantised import QuantisedModel
from tutelage.dpu.isa.costs import SAVE_BYTES, STRETCH_CYCLES
from tutelage.dpu.predict.cycles import bounds
from tutelage.dpu.predict.latency import (
    Board,
    Prediction,
    operations_of_graph,
    predict,
    predict_graph,
    read_board,
)
from tutelage.dpu.predict.operations import Operation, Sketch
from tutelage.dpu.predict.traffic import group_bytes, map_bytes, stages
from tutelage.dpu.runtime import xir

BOARD = read_board("zcu104")
PUBLISHED = {"zcu104": "2 cores at 300", "zcu102": "3 cores at 281", "kv260": "1 core at 300"}
PILLARS = "pointpillars_zcu104_vai25.xmodel"


def _network(
    size: int, channels: int, depth: int, kernel: int = 3, classes: int = 10
) -> list[Operation]:
    net = Sketch(size, size)
    x = net.conv(0, channels, 3, 2)
    for _ in range(depth):
        x = net.add(net.conv(net.depthwise(net.conv(x, channels, kernel)), channels), x)
        x = net.concat(x, net.conv(x, channels))
        x = net.conv(net.pool(x, 2, 1), channels)
    net.dense(net.global_pool(x), classes)
    return net.operations


def _seconds(operations: list[Operation], board: Board = BOARD) -> list[float]:
    """The times that must not decrease with more work."""
    found = predict(operations, board)
    return [found.job_seconds, found.latency_seconds, 1 / found.fps(), 1 / found.fps(3)]


_networks = st.tuples(
    st.integers(8, 300), st.integers(1, 300), st.integers(1, 4), st.integers(1, 5),
    st.integers(1, 2000),
)  # fmt: skip


_boards = st.sampled_from([read_board(name) for name in PUBLISHED])


@given(_networks, st.tuples(*[st.sampled_from([0, 0, 1, 2, 7, 40])] * 5))
@example((177, 21, 1, 1, 1), (0, 0, 0, 1, 0))  # less than 0.01 % between them with two cores
def test_less_work_is_never_slower(base: tuple[int, ...], more: tuple[int, ...]) -> None:
    larger = [a + b for a, b in zip(base, more, strict=True)]
    small, large = _network(*base), _network(*larger)
    assert all(a <= b * (1 + 1e-9) for a, b in zip(_seconds(small), _seconds(large), strict=True))


@given(_networks, st.floats(1, 3))
def test_faster_hardware_is_never_slower(shape: tuple[int, ...], factor: float) -> None:
    operations = _network(*shape)
    faster = replace(BOARD, clock_mhz=BOARD.clock_mhz * factor)
    pairs = zip(_seconds(operations, faster), _seconds(operations), strict=True)
    assert all(a <= b * (1 + 1e-9) for a, b in pairs)
    more = predict(operations, replace(BOARD, cores=3))
    assert more.fps() >= predict(operations, BOARD).fps() * (1 - 1e-9)


@given(_networks, _boards)
def test_threads_help_up_to_the_bottleneck(shape: tuple[int, ...], board: Board) -> None:
    found = predict(_network(*shape), board)
    speeds = [found.fps(n) for n in range(1, 9)]
    assert all(a <= b * (1 + 1e-9) for a, b in pairwise(speeds))
    rounding = 1 + 1e-9
    assert speeds[-1] <= found.fps() * rounding
    assert found.fps() <= board.cores / found.job_seconds * rounding
    assert found.fps(10**400) >= speeds[-1]
    assert found.fps(1) == 1 / found.latency_seconds
    low, high = found.fps_range(1)
    assert low < found.fps(1) < high


@given(_networks, _boards)
def test_python_feeds_no_more_than_its_lock_lets(shape: tuple[int, ...], board: Board) -> None:
    found = predict(_network(*shape), board)
    speeds = [found.python_fps(n) for n in range(1, 9)]
    assert all(a <= b * (1 + 1e-9) for a, b in pairwise(speeds))
    most = min(1e6 / board.python.lock_us, found.dpu_fps)
    assert speeds[-1] <= found.python_fps() <= most * (1 + 1e-9)
    one = found.job_seconds + 1e-6 * board.python.frame_us
    assert found.python_fps(1) == pytest.approx(1 / one)


@given(_networks)
def test_it_is_above_the_lower_bounds(shape: tuple[int, ...]) -> None:
    """Fused ops run beside their convolution on another engine."""
    found = predict(_network(*shape), BOARD)
    layers = found.layers()
    assert sum(layer.seconds for layer in layers) == pytest.approx(found.job_seconds)
    assert {layer.bound for layer in layers} <= {"array", "parameters", "maps", "start"}
    for layer in layers:
        s = layer.stage
        loading = (s.parameter_bytes + s.loaded_bytes) / 32
        least = max(s.cycles, loading, s.stored_bytes / SAVE_BYTES) / 300e6
        assert layer.seconds > least
        least = layer.start + max(layer.computing, layer.parameters)
        assert layer.seconds >= least * (1 - 1e-9)


def test_a_layer_by_hand() -> None:
    """64x64x256 to 64x64x256 by 3x3: 8 tiles of 8 rows, 16 groups of 16 channels."""
    net = Sketch(64, 64, 256)
    net.conv(0, 256, 3)
    (layer,) = predict(net.operations, BOARD).layers()
    given, stage = BOARD.parameters.costs, layer.stage
    assert stage.computing == 64 * 64 * 256 * (2 * 9 * 256 + 1) / 4096
    assert (stage.tiles, stage.groups, stage.serial, stage.returned) == (8, 16, False, False)
    assert (stage.parameter_loads, stage.parameter_bytes) == (257, 256 * 9 * 256 + 256)
    assert (stage.load_rows, stage.load_bytes) == (64, 64 * 64 * 256)
    assert (stage.save_rows, stage.save_bytes) == (64, 64 * 64 * 256)
    assert (stage.load_pixels, stage.save_pixels) == ([], [])
    tile = given.array_slack * stage.computing / 8
    load = 8 * given.load_cycles + 8 * 64 * 256 / given.load_bytes
    weights = stage.parameter_bytes / 16 / given.load_bytes
    assert weights > 257 / 16 * given.load_cycles and tile / 16 > weights and tile > load
    save = 8 * given.load_cycles + 8 * 64 * 256 / SAVE_BYTES
    cycles = load + weights + 8 * tile + save + given.stage_cycles
    assert layer.bound == "array"
    assert layer.seconds == pytest.approx(cycles / 300e6)


def test_a_stage_that_waits_for_memory_by_hand() -> None:
    """The sum reads the rows of the 1x1 convolution; a concat's part is saved pixel by pixel."""
    net = Sketch(16, 16, 24)
    a = net.conv(0, 24)
    b = net.add(net.conv(a, 24), a)
    net.conv(net.concat(a, b), 8)
    first, second, third = predict(net.operations, BOARD).layers()
    given = BOARD.parameters.costs
    assert [o.kind for o in second.stage.operations] == ["conv2d", "eltwise"]
    assert (first.stage.save_pixels, third.stage.load_pixels) == ([(256, 24)], [])
    assert (second.stage.load_rows, second.stage.fused) == (0, 16 * 16 * 2 * 32 / 64)
    assert (first.stage.returned, third.stage.returned) == (False, True)
    saves = 16 * given.load_cycles + 256 * max(STRETCH_CYCLES, 24 / SAVE_BYTES)
    assert second.maps == pytest.approx(saves / 300e6)
    maps = 16 * given.load_cycles + 256 * 48 / given.load_bytes
    maps += 16 * given.load_cycles + 256 * 8 / SAVE_BYTES
    assert third.maps == pytest.approx(maps / 300e6)
    assert third.start == pytest.approx(2 * given.stage_cycles / 300e6)


def test_weights_that_do_not_fit_twice_are_loaded_in_turn_with_computing() -> None:
    net = Sketch(7, 7, 512)
    net.dense(0, 64)  # 49 * 32 of 2,048 words
    net.dense(net.global_pool(0), 64)
    first, _, last = predict(net.operations, BOARD).layers()
    assert (first.stage.serial, last.stage.serial) == (True, False)
    given, s = BOARD.parameters.costs, first.stage
    weights, computing = s.parameter_bytes / given.load_bytes, given.array_slack * s.computing
    loads = 7 * given.load_cycles + 7 * 7 * 512 / given.load_bytes
    save = given.load_cycles + 64 / SAVE_BYTES
    cycles = weights + computing + loads + save + given.stage_cycles
    assert first.seconds == pytest.approx(cycles / 300e6)


def test_maps_that_stay_on_the_chip() -> None:
    net = Sketch(32, 32, 128)  # 128 KiB, of 512
    a = net.conv(0, 128, 3)
    b = net.conv(a, 128, 3)  # reads a on the chip
    net.conv(net.add(b, a), 512)  # the sum takes the rows of b, and a is still in its group
    first, second, last = stages(net.operations)
    assert (first.loaded_bytes, first.stored_bytes) == (2**17, 0)
    assert (second.loaded_bytes, second.stored_bytes) == (0, 0)
    assert (last.loaded_bytes, last.stored_bytes) == (0, 2**19)
    assert map_bytes(B4096) == 2 * group_bytes(B4096) == 2**19


def test_evicted_maps_are_loaded_again() -> None:
    net = Sketch(32, 32, 256)  # 256 KiB: a group of banks
    a = net.conv(0, 256)
    b = net.conv(net.conv(a, 512), 256)  # 512 KiB between them
    net.add(b, a)
    first, second, third = stages(net.operations)
    assert (first.loaded_bytes, first.stored_bytes) == (2**18, 2**18)
    assert (second.loaded_bytes, second.stored_bytes) == (0, 2**19)
    assert (third.loaded_bytes, third.stored_bytes) == (2**19 + 2**18, 2**18)
    assert [s.returned for s in (first, second, third)] == [False, False, True]


def test_a_stride_of_small_kernels_skips_rows_and_columns() -> None:
    net = Sketch(32, 32, 128)
    net.conv(0, 64, 1, 2)
    (stage,) = stages(net.operations)
    assert (stage.load_rows, stage.load_bytes, stage.load_pixels) == (16, 0, [(256, 128)])


def test_a_pool_behind_a_concat_is_done_on_its_parts() -> None:
    net = Sketch(32, 32, 16)
    x = net.conv(0, 16)
    joint = net.concat(net.conv(x, 16), net.conv(x, 32, 3))
    net.conv(net.pool(joint), 8)
    kinds = [[o.kind for o in s.operations] for s in stages(net.operations)]
    assert kinds == [["conv2d"], ["conv2d", "maxpool2d"], ["conv2d", "maxpool2d"], ["conv2d"]]
    # Of x as well: a pool is between its readers.
    assert [s.stored_bytes for s in stages(net.operations)] == [16384, 4096, 8192, 2048]
    assert stages(net.operations)[-1].loaded_bytes == 16 * 16 * 48
    net.conv(joint, 8)  # the map itself is read as well
    kinds = [[o.kind for o in s.operations] for s in stages(net.operations)]
    assert kinds == [["conv2d"]] * 3 + [["maxpool2d"]] + [["conv2d"]] * 2


def test_joined_maps_go_through_memory_and_joining_is_free() -> None:
    net = Sketch(16, 16, 16)
    x = net.conv(0, 16)
    net.conv(net.concat(x, net.conv(x, 16)), 8)
    found = stages(net.operations)
    assert [s.operation.kind for s in found] == ["conv2d"] * 3
    assert [s.stored_bytes for s in found] == [4096, 4096, 2048]
    assert [s.loaded_bytes for s in found] == [4096, 0, 8192]


def test_both_cores_share_the_memory() -> None:
    """Two VGG-like heads always wait for memory; two convolutions on the chip never do."""
    heads, chain = Sketch(1, 1, 4096), Sketch(56, 56, 32)
    heads.dense(heads.dense(0, 4096), 4096)
    x = 0
    for _ in range(10):
        x = chain.conv(x, 32, 3)
    slower = []
    for net in (heads, chain):
        counts = predict(net.operations, BOARD).counts
        given = BOARD.parameters
        slower.append(float(counts.job_cycles(given, 2)[0] / counts.job_cycles(given)[0]))
    assert slower[0] == pytest.approx(1 + BOARD.parameters.shared, abs=0.02)
    assert 1 < slower[1] < 1.2


def test_a_third_core_is_slower_than_two_and_never_harms() -> None:
    """Two VGG-like heads always wait for memory, so a third core does not help."""
    heads, chain = Sketch(1, 1, 4096), Sketch(56, 56, 32)
    heads.dense(heads.dense(0, 4096), 4096)
    x = 0
    for _ in range(10):
        x = chain.conv(x, 32, 3)
    given = BOARD.parameters
    for net, more in ((heads, False), (chain, True)):
        counts = predict(net.operations, BOARD).counts
        one, two, three = (float(counts.jobs_per_cycle(given, n)[0]) for n in (1, 2, 3))
        alone, near, far = (
            float(counts.job_cycles(given, *at)[0]) for at in ((1,), (3, 1), (3, 2))
        )
        assert one == pytest.approx(1 / alone) and alone < near < far
        assert (one < two <= three) and (three > two) == more
        assert three == pytest.approx(2 / near + 1 / far if more else two)
    slower = (1 + 2 * given.shared) * given.third
    counts = predict(heads.operations, BOARD).counts
    third = float(counts.job_cycles(given, 3, 2)[0] / counts.job_cycles(given)[0])
    assert third == pytest.approx(slower, rel=0.02)


def test_traffic_is_that_of_amds_instructions(shared_dir: Path) -> None:
    """Bytes of every LOAD and SAVE that AMD's compiler wrote for PointPillars' two DPU parts."""
    graph = xir.Graph.deserialize(shared_dir / "models" / PILLARS)
    parts = graph.get_root_subgraph().toposort_child_subgraph()
    moved: Counter[str] = Counter()
    for part in parts:
        if part.get_attr("device") == "DPU":
            contexts = part.get_attr("reg_id_to_context_type_v2")
            for opcode, register, size in _transfers(part.get_attr("mc_code")):
                constant = contexts[f"REG_{register}"] == "CONST"
                moved["saved" if opcode == SAVE else "constants" if constant else "loaded"] += size
    found = stages(operations_of_graph(graph))
    assert sum(s.parameter_bytes for s in found) == moved["constants"] == 395_016
    assert sum(s.loaded_bytes for s in found) == pytest.approx(moved["loaded"], rel=0.005)
    assert sum(s.stored_bytes for s in found) == moved["saved"]


LOAD, SAVE = 0, 4
WORDS = {LOAD: 5, 1: 6, 2: 5, SAVE: 5, 7: 1, 8: 5, 9: 4}
"""Length of an instruction by the four highest bits of its first word, as found in AMD's files."""


def _transfers(code: bytes) -> list[tuple[int, int, int]]:
    """(opcode, register, bytes) of the LOADs and SAVEs: the third word holds the pixels less one
    in its lowest ten bits and the channels less one above, the fourth the register."""
    words = struct.unpack(f"<{len(code) // 4}I", code)
    at, found = 0, []
    while at < len(words):
        opcode = words[at] >> 28
        if opcode in (LOAD, SAVE):
            pixels, channels = (words[at + 2] & 0x3FF) + 1, (words[at + 2] >> 10 & 0xFFF) + 1
            found.append((opcode, words[at + 3] & 0xFF, pixels * channels))
        at += WORDS[opcode]
    return found


def test_quantised_and_compiled_files_give_the_same(demo_model: Path) -> None:
    compiled, quantised = (
        predict(operations_of_graph(xir.Graph.deserialize(path)), BOARD)
        for path in (demo_model, demo_model.with_name("quantised.xmodel"))
    )
    assert compiled.job_seconds == pytest.approx(quantised.job_seconds, rel=1e-9)
    assert compiled.cpu_seconds == quantised.cpu_seconds
    loaded = sum(bound.loading for bound in bounds(compiled.operations) if bound)
    assert sum(s.parameter_bytes for s in compiled.stages) == 32 * loaded


def test_the_quantised_and_the_compiled_pointpillars_take_the_same(shared_dir: Path) -> None:
    quantised, compiled = (
        predict(operations_of_graph(xir.Graph.deserialize(shared_dir / "models" / name)), BOARD)
        for name in ("pointpillars_quantized.xmodel", PILLARS)
    )
    assert quantised.job_seconds == pytest.approx(compiled.job_seconds, rel=1e-3)
    assert [o.name for o in quantised.left_to_cpu] == [o.name for o in compiled.left_to_cpu]


def _predict(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main(["predict", *map(str, arguments)])
    out, err = capsys.readouterr()
    return status, out, err


def test_sums_and_products_take_the_same_in_both_forms() -> None:
    """Those in quantised files used to be left out, as if the CPU computed them."""
    model, rng = QuantisedModel("joins"), np.random.default_rng(0)
    kernels = [rng.integers(-9, 9, (16, 3, 3, 16), dtype=np.int8) for _ in range(3)]
    x = model.input("image", (1, 32, 32, 16), 5)
    a, b, c = (model.conv2d(f"c{n}", x, w, 6, None, 0, 4) for n, w in enumerate(kernels))
    model.output(model.multiply("product", [model.add("sum", [a, b], 4), c], 4))
    quantised = model.finish()
    found = [predict_graph(graph) for graph in (quantised, compile_graph(quantised))]
    assert found[0].job_seconds == pytest.approx(found[1].job_seconds, rel=1e-9)
    assert [prediction.left_to_cpu for prediction in found] == [[], []]


def test_predict_prints_layers_and_totals(
    emulator_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = _predict(capsys, emulator_model, "--threads", 2, "--json")
    facts = json.loads(out)
    assert status == 0 and facts["board"] == "zcu104"
    assert sum(layer["us"] for layer in facts["layers"]) == pytest.approx(1e3 * facts["dpu_ms"])
    assert facts["latency_ms"]["value"] == pytest.approx(facts["dpu_ms"] + facts["cpu_ms"])
    assert [speed["threads"] for speed in facts["threads"]] == [1, 2, None]
    assert facts["threads"][0]["fps"]["value"] == pytest.approx(1e3 / facts["latency_ms"]["value"])
    assert sum(facts["bound_ms"].values()) == pytest.approx(facts["dpu_ms"])
    status, out, _ = _predict(capsys, emulator_model)
    assert status == 0 and "e+" not in out
    texts = "bound by", "threads  1: ", "Python   ", "not measured here", " mJ per frame", "60 W"
    assert all(text in out for text in texts)


def test_predict_takes_functions(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = _predict(capsys, "tutelage.host.latency.published_networks:squeezenet")
    assert status == 0 and "349,151,936 MACs" in out
    for wrong in ("no.such:thing", "json:nothing", "time:time", "json:dumps"):
        status, out, err = _predict(capsys, wrong)
        assert (status, out) == (2, "") and err.startswith("tutelage: ") and err.count("\n") == 1


def test_predict_refuses_unsupported_models(
    demo_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.xmodel"
    broken.write_bytes(demo_model.read_bytes()[:999])
    for arguments in ((broken,), (tmp_path / "none.xmodel",), (demo_model, "--board", "ultra96v2")):
        status, out, err = _predict(capsys, *arguments)
        assert (status, out) == (2, "") and err.count("\n") == 1
    status, out, err = _predict(capsys, demo_model, "--threads", "0")
    assert (status, out) == (2, "") and err.startswith("tutelage: ") and err.count("\n") == 1


@pytest.mark.parametrize("board", board_names())
def test_every_board_is_predicted_or_lacks_something_by_name(
    demo_model: Path, capsys: pytest.CaptureFixture[str], board: str
) -> None:
    status, out, err = _predict(capsys, demo_model, "--board", board)
    if board in PUBLISHED:
        assert (status, err) == (0, "") and "not run on" not in out
        assert f" on {board} ({PUBLISHED[board]} MHz): " in out
    else:
        assert (status, out) == (2, "") and err.count("\n") == 1
        assert f"{board}.toml: lacks dpu.clock_mhz, cpu.cores, which predictions need" in err


def test_a_smaller_array_is_slower_and_the_file_says_which_it_is(
    shared_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = shared_dir / "models" / "corpus" / "densebox_kv260.xmodel"
    own = predict_graph(xir.Graph.deserialize(path), BOARD)
    larger = predict(own.operations, BOARD)
    assert sum(s.cycles for s in own.stages) > sum(s.cycles for s in larger.stages)
    status, out, _ = _predict(capsys, path)
    assert status == 0 and out.splitlines()[1] == (
        "compiled for DPUCZDX8G_ISA1_B3136 (fingerprint 0x101000016010406); does not run on "
        "zcu104, whose DPU is DPUCZDX8G_ISA1_B4096 (0x101000016010407 or 0x101000056010407); the "
        "figures are for the file's array at the board's clock"
    )
    status, out, _ = _predict(capsys, path, "--json")
    assert status == 0 and json.loads(out)["misfit"].startswith("compiled for DPUCZDX8G_ISA1_B3136")


@settings(deadline=None)
@given(_networks)
def test_a_larger_array_is_never_slower(shape: tuple[int, ...]) -> None:
    """This holds if the sides of one array are multiples of the other's: B512, B1024, B4096."""
    operations = _network(*shape)
    cycles = [sum(s.cycles for s in stages(operations, ARRAYS[size])) for size in (0, 2, 7)]
    assert cycles == sorted(cycles, reverse=True)


def test_nothing_to_do_takes_only_the_cpu() -> None:
    found: Prediction = predict(Sketch(8, 8).operations, BOARD)
    assert (found.job_seconds, found.layers()) == (0, [])
    assert found.fps() == pytest.approx(BOARD.cpus / found.cpu_seconds)
