"""`tutelage disasm` and `asm`, and code layer by layer."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tutelage.__main__ import main
from tutelage.core.fingerprint import fingerprint_of, is_own
from tutelage.dpu.inspect.code import PartCode, analyse, nodes_of
from tutelage.dpu.isa.assembly import assemble, disassemble
from tutelage.dpu.isa.encoding import decode, encode
from tutelage.dpu.isa.machine import shape_of
from tutelage.dpu.predict.latency import predict_graph
from tutelage.dpu.xmodel.graph import Graph

CNN = "models/corpus/mnist_cnn_zcu104.xmodel"
PRELU = "models/mnist_prelu_zcu104_vai25.xmodel"
OLD = "models/corpus/mnist_prelu_zcu104_vai14.xmodel"
LAYERS = tuple(f"CNN__CNN_Sequential_network__Conv2d_{n}" for n in (
    "0__input_3", "3__input_9", "6__input_15", "9__input"))  # fmt: skip


@pytest.fixture
def cnn(shared_dir: Path) -> PartCode:
    (part,) = analyse(Graph.deserialize(shared_dir / CNN))
    return part


def _code(path: Path) -> list[bytes]:
    children = Graph.deserialize(path).get_root_subgraph().toposort_child_subgraph()
    return [part.get_attr("mc_code") for part in children if part.has_attr("mc_code")]


def test_layers_of_a_real_file(cnn: PartCode) -> None:
    assert [layer.name for layer in cnn.layers] == [*LAYERS, ""]
    first, second, *_, last, end = cnn.layers
    # 5x5 convolutions with stride 2 of 28x28x1 and 14x14x16, the first by rows of 5 pixels as
    # channels: 13 columns, 5 taps, 2 instructions.
    assert (first.array_cycles, second.array_cycles) == (2 * 13 * 5, 2 * 6 * 25)
    assert first.parameter_bytes == 16 * 25 + 16 and second.parameter_bytes == 32 * 400 + 32
    assert first.saved_bytes == 0 and last.saved_bytes == 10
    assert dict(end.instructions) == {"END": 1}
    assert sum(sum(layer.instructions.values()) for layer in cnn.layers) == len(cnn.code) == 170
    assert all(a.end <= b.end for a, b in zip(cnn.layers, cnn.layers[1:], strict=False))
    wait = second.main_wait
    assert wait is not None and wait[:2] == ("CONV", "LOAD")


def test_tensors_of_a_real_file(cnn: PartCode) -> None:
    places = {place.name: place for place in cnn.places}
    source, weights = places["CNN__input_0_upload_0"], places["CNN__network_3_weight"]
    assert source.kind == "input" and source.bytes == (2, 32, 32 + 28 * 28)
    assert weights.kind == "constant" and weights.bytes == (0, 12288, 12288 + 32 * 400)
    inner, last = places[LAYERS[1]], places[LAYERS[3]]
    assert inner.kind == "layer" and inner.bytes is None and inner.ddr is None
    assert inner.chip is not None and inner.chip[0] < inner.chip[1]
    assert last.bytes == (3, 0, 10) and last.ddr == (168, 168)


def test_reads_are_those_of_the_graph(cnn: PartCode) -> None:
    """Each convolution reads its constants and its input, by the graph and by its code."""
    nodes = nodes_of(cnn.part.subgraph)
    for place, instruction in enumerate(cnn.code):
        if instruction.name == "CONV":
            layer = cnn.attribution.layers[place]
            assert set(cnn.attribution.reads[place]) == nodes[layer].sources


@pytest.mark.parametrize("name", [CNN, PRELU, OLD])
def test_asm_undoes_disasm(
    shared_dir: Path, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, code in enumerate(_code(shared_dir / name)):
        assert main(["disasm", str(shared_dir / name), "--part", str(number)]) == 0
        text = capsys.readouterr().out
        source, target = tmp_path / "code.s", tmp_path / "code.bin"
        source.write_text(text)
        isa = "isa0" if ": ISA0," in text else "isa1"
        assert main(["asm", str(source), "-o", str(target), "--isa", isa]) == 0
        assert target.read_bytes() == code
        capsys.readouterr()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::tutelage.core.errors.UnsortedWarning")
def test_all_code_goes_through_assembly(shared_dir: Path) -> None:
    count = 0
    for path in sorted((shared_dir / "models").rglob("*.xmodel")):
        if path.name == "damaged_by_git.xmodel":
            continue
        for part in Graph.deserialize(path).get_root_subgraph().get_children():
            number = fingerprint_of(part)
            if number is None or not is_own(number) or not part.has_attr("mc_code"):
                continue
            isa, code = shape_of(number).isa, part.get_attr("mc_code")
            if code:
                assert encode(assemble(disassemble(decode(code, isa)), isa)) == code, path
                count += 1
    assert count > 15


def test_disasm_for_a_reader(
    shared_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "engines.svg"
    command = ["disasm", str(shared_dir / PRELU)]
    assert main([*command, "--layer", "max_pooling2d_1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [";", "ALU", "SAVE", "SAVE"]
    assert "; quant_max_pooling2d_1; reads quant_conv2d_2; VB0.0[0] to VB1.0[148]" in lines[1]
    assert lines[3].endswith("; quant_max_pooling2d_1; VB1.1[148] to REG_3[128:256]")
    assert main([*command, "--summary", "--svg", str(picture)]) == 0
    text = capsys.readouterr().out
    assert "CONV for LOAD" in text and "LOAD 61 CONVINIT 2 ALUINIT 1 CONV 6" in text
    assert "are simulated" in text
    root = ET.fromstring(picture.read_bytes())
    assert "quant_max_pooling2d_1" in "".join(root.itertext())


def test_disasm_for_a_program(shared_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["disasm", str(shared_dir / PRELU), "--json"]
    assert main(command) == 0
    one, two = json.loads(capsys.readouterr().out)["subgraphs"]
    assert (one["isa"], one["instructions"], len(one["code"])) == ("ISA1", 185, 185)
    assert one["code"][0]["fields"]["channel"] == 32 and one["code"][0]["layer"] == "quant_conv2d"
    assert one["cycles"] > max(layer["array_cycles"] for layer in one["layers"]) > 0
    assert two["layers"][0]["name"].startswith("quant_dense")
    assert main([*command, "--summary", "--part", "1"]) == 0
    (only,) = json.loads(capsys.readouterr().out)["subgraphs"]
    assert only == {key: value for key, value in two.items() if key != "code"}


def test_errors_are_one_line(
    shared_dir: Path, demo_model: Path, emulator_model: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    source, bad = tmp_path / "code.s", tmp_path / "bad.s"
    source.write_text("END on=SAVE by=SAVE\nEND on=SAVE by=SAVE\n")
    bad.write_text("\n\nJUMP\n")
    out = ["-o", str(tmp_path / "code.bin")]
    for arguments, text in (
        (["disasm", str(emulator_model)], "has no DPU code"),
        (["disasm", str(demo_model.with_name("quantised.xmodel"))], "has no DPU code"),
        (["disasm", str(shared_dir / CNN), "--layer", "pool"], "no layer has 'pool' in its name"),
        (["disasm", str(shared_dir / CNN), "--part", "1"], "--part 1: "),
        (["asm", str(source), *out], "there is code after END"),
        (["asm", str(bad), *out], "line 3: ISA1 has no instruction 'JUMP'"),
        (["asm", str(bad), *out, "--isa", "isa7"], "not one of isa0, isa1"),
        (["asm", str(tmp_path / "none.s"), *out], "No such file"),
    ):
        assert main(arguments) == 2, arguments
        error = capsys.readouterr().err
        assert text in error and error.count("\n") == 1
    assert not (tmp_path / "code.bin").exists()


def test_inspect_shows_where_tensors_are(
    shared_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "net.html"
    command = ["inspect", str(shared_dir / CNN), "--places"]
    assert main([*command, "--html", str(page)]) == 0
    text = capsys.readouterr().out
    assert "constant  REG_0 12288 to 25088    51 to 83    51 to 84" in text
    html = page.read_text()
    assert "Engines over time" in html and "REG_0 12288 to 25088" in html
    assert main([*command, "--json"]) == 0
    (part,) = json.loads(capsys.readouterr().out)["code"]
    tensors = {tensor["name"]: tensor for tensor in part["tensors"]}
    assert tensors["CNN__input_0_upload_0"]["bytes"] == [32, 816]
    assert tensors[LAYERS[1]]["in_ddr"] is None and tensors[LAYERS[1]]["on_chip"] == [67, 154]


def test_inspect_without_code_has_no_places(
    emulator_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(emulator_model), "--places"]) == 2
    assert "has no DPU code" in capsys.readouterr().err


def test_predict_simulates_the_code(
    shared_dir: Path, emulator_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The main figures are the code's, with the layer model's beside them."""
    assert main(["predict", str(shared_dir / CNN), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    code, layers = facts["code"], facts["code"]["layer_model"]
    (part,) = analyse(Graph.deserialize(shared_dir / CNN))
    assert code["cycles"] == pytest.approx(part.timeline.cycles, abs=0.1)
    assert code["dpu_ms"] == facts["dpu_ms"] == pytest.approx(code["cycles"] / 300e3, rel=1e-4)
    latency = facts["latency_ms"]["value"]
    assert latency == code["latency_ms"] == pytest.approx(facts["dpu_ms"] + facts["cpu_ms"])
    assert facts["threads"][0]["fps"]["value"] == pytest.approx(1e3 / latency)
    assert layers["latency_ms"] == pytest.approx(layers["dpu_ms"] + facts["cpu_ms"])
    assert layers["dpu_ms"] == pytest.approx(sum(facts["bound_ms"].values()))
    assert layers["dpu_ms"] == pytest.approx(1e-3 * sum(layer["us"] for layer in facts["layers"]))
    assert main(["predict", str(shared_dir / CNN)]) == 0
    out = capsys.readouterr().out
    assert "simulated from the file's own instructions" in out and "ms by the layer model" in out
    assert main(["predict", str(emulator_model), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["code"] is None
    assert main(["predict", str(emulator_model)]) == 0
    assert "instructions" not in capsys.readouterr().out


def test_other_cores_slow_code_as_they_slow_layers(shared_dir: Path) -> None:
    path = shared_dir / "models/corpus/squeezenet_dpu_pynq.xmodel"
    found = predict_graph(Graph.deserialize(path))
    layers = found.layer_model
    assert found.job_seconds != layers.job_seconds and layers.code_cycles is None
    share = found.job_seconds / layers.job_seconds
    assert found.dpu_fps == pytest.approx(layers.dpu_fps / share)
    assert found.fps() == pytest.approx(layers.fps() / share)  # the cores bind
    assert found.python_fps(1) != layers.python_fps(1)
    for side, end in zip(("high", "low"), found.fps_range(), strict=True):
        assert found.fps() / end == pytest.approx(found.board.error[side][1])
