"""`inspect --svg --html`: pictures that are well-formed, escaped and bounded."""

from __future__ import annotations

import json
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.benchmarks.densenet_pair import int8_graph
from tutelage.__main__ import main
from tutelage.core.errors import DpuError
from tutelage.core.text import shown
from tutelage.dpu.compiler.builder import CompiledModel
from tutelage.dpu.inspect import draw
from tutelage.dpu.inspect.layout import BOX_HEIGHT, BOX_WIDTH, place
from tutelage.dpu.xmodel.schema import GraphProto

SVG = "{http://www.w3.org/2000/svg}"
EVIL = "</script><script>alert(1)</script><img src=x onerror='alert(2)'>\"]]>&\x1b"


class _Page(HTMLParser):
    """Collects the elements of a page, their attributes and the text of scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.scripts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] == "script" and data.strip():
            self.scripts.append(data)


def _boxes(picture: Path) -> list[ElementTree.Element]:
    root = ElementTree.parse(picture).getroot()
    return [g for g in root.iter(f"{SVG}g") if "node" in g.get("class", "").split()]


def _draw(xmodel: Path, folder: Path) -> tuple[Path, Path]:
    svg, html = folder / "net.svg", folder / "net.html"
    assert main(["inspect", str(xmodel), "--svg", str(svg), "--html", str(html)]) == 0
    return svg, html


def test_every_layer_is_a_box(demo_model: Path, tmp_path: Path) -> None:
    svg, html = _draw(demo_model, tmp_path)
    assert len(_boxes(svg)) == 36
    page = _Page()
    page.feed(html.read_text())
    assert page.tags.count("table") == 1 and page.tags.count("svg") == 1
    assert page.tags.count("tr") == 1 + 35 + 1
    assert len(json.loads(page.scripts[0])) == 36


def test_boxes_do_not_overlap_and_lines_run_down() -> None:
    rng = np.random.default_rng(4)
    sources: list[list[int]] = [[]] + [
        sorted({int(s) for s in rng.integers(max(0, n - 9), n, rng.integers(1, 4))})
        for n in range(1, 150)
    ]
    layout = place(sources)
    corners = list(layout.corners.values())
    assert len(corners) == 150
    for i, (x, y) in enumerate(corners):
        assert x >= 0 and x + BOX_WIDTH <= layout.width and y + BOX_HEIGHT <= layout.height
        for u, v in corners[i + 1 :]:
            assert abs(x - u) >= BOX_WIDTH or abs(y - v) >= BOX_HEIGHT
    drawn = {(line.source, line.target) for line in layout.lines if line.arrow}
    assert drawn == {(s, n) for n, read in enumerate(sources) for s in read}


def test_a_densenet_of_100_layers_fits_a_page(tmp_path: Path) -> None:
    path = tmp_path / "densenet.xmodel"
    int8_graph().serialize(path)
    root = ElementTree.parse(_draw(path, tmp_path)[0]).getroot()
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    assert 0.7 < width / height < 2.5 and height < 2500


def test_nothing_to_draw() -> None:
    layout = place([])
    assert layout.corners == {} and layout.lines == []


def test_untrusted_names_stay_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = CompiledModel(EVIL)
    x = model.input(EVIL, (1, 2, 2, 1), 3)
    x = model.conv2d("n" + EVIL * 50, x, np.ones((1, 1, 1, 1), np.int8), 0, None, 0, 3)
    model.output(x)
    path = tmp_path / "evil.xmodel"
    model.save(path)
    svg, html = _draw(path, tmp_path)
    assert main(["inspect", str(path), "--ops"]) == 0
    assert all(line.isprintable() for line in capsys.readouterr().out.splitlines())
    assert len(_boxes(svg)) == 2  # well-formed, or the parser would have refused it
    page = _Page()
    page.feed(html.read_text())
    assert page.tags.count("script") == 2 and "img" not in page.tags
    assert "onerror" not in page.attributes
    assert json.loads(page.scripts[0])[0][0] == ["layer", f"#0 {shown(EVIL)}"]
    assert "\x1b" not in html.read_text() and "\x1b" not in svg.read_text()


def test_values_are_in_the_page(
    demo_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "in.npy", np.full((2, 28, 28, 1), 9.0, np.float32))
    html = tmp_path / "net.html"
    command = ["inspect", str(demo_model), "--images", str(tmp_path / "in.npy")]
    assert main([*command, "--html", str(html)]) == 0
    text = html.read_text()
    assert "Values on 2 images" in text and 'class="wrong"' in text and " wrong" in text
    assert "#0 densenet_small__input: 100.0% saturated: fix point 7 -&gt; 6" in text


@pytest.mark.parametrize("option", ["--svg", "--html"])
def test_places_that_cannot_be_written(
    demo_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    for place_ in (tmp_path / "no" / "such" / "file", tmp_path, tmp_path / ("x" * 300)):
        assert main(["inspect", str(demo_model), option, str(place_)]) == 1
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.count("\n") == 1
        assert "cannot write" in captured.err
    assert not list(tmp_path.iterdir())


def _huge(kind: str) -> bytes:
    """Return a file with the largest number of ops, in shapes that are most expensive to draw."""
    graph = GraphProto(graph_name=kind)
    graph.subg_root.SetInParent()
    for number in range(30_000):
        name = f"n{number}"
        node = graph.op_node.add(op_name=name, op_type="relu-fix" if number else "data-fix")
        if number:
            node.args.add(arg_name="input", arg_ops=["n0" if kind == "star" else f"n{number - 1}"])
        node.output_tensor.tensor_dim.extend([1, 2, 2, 4])
        node.output_tensor.data_type, node.output_tensor.tensor_bit_width = 2, 8
        if kind == "parts":
            graph.subg_root.subg_child.add(subgraph_name=name).op_name.append(name)
    if kind == "star":
        graph.graph_attr["return_ops"].string_vec_value.value.extend(["z"] * 50_000)
    return bytes(graph.SerializeToString())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["star", "parts"])
def test_huge_graphs_are_not_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    path = tmp_path / "huge.xmodel"
    path.write_bytes(_huge(kind))
    began = time.process_time()
    assert main(["inspect", str(path)]) == 0
    captured = capsys.readouterr()
    assert "and 25,000 more layers" in captured.out and len(captured.out) < 1 << 20
    option = {"star": "--svg", "parts": "--html"}[kind]
    assert main(["inspect", str(path), option, str(tmp_path / "picture")]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == (
        f"tutelage: {path}: 30,000 layers; a drawing shows at most 2,000; use --json\n"
    )
    assert time.process_time() - began < 60  # would take minutes or hours if a step were not linear
    assert list(tmp_path.iterdir()) == [path]


def test_too_many_connections_are_not_drawn() -> None:
    layers = [
        {"name": f"n{number}", "inputs": [f"n{source}" for source in range(number)]}
        for number in range(300)
    ]
    with pytest.raises(DpuError, match="44,850 connections; a drawing shows at most 20,000"):
        draw.svg({"name": "every pair", "layers": layers})


def test_as_many_layers_as_may_be_are_drawn(tmp_path: Path) -> None:
    model = CompiledModel("long")
    x = model.input("image", (1, 1, 1, 1), 3)
    for number in range(draw.MAX_NODES - 1):
        x = model.max_pool(f"p{number}", x, [1, 1], [1, 1])
    model.output(x)
    model.save(tmp_path / "long.xmodel")
    assert len(_boxes(_draw(tmp_path / "long.xmodel", tmp_path)[0])) == draw.MAX_NODES


def test_pictures_need_no_network_and_name_their_figures(demo_model: Path, tmp_path: Path) -> None:
    for picture in _draw(demo_model, tmp_path):
        text = picture.read_text().replace('xmlns="http://www.w3.org/2000/svg"', "", 1)
        assert not re.search(
            r"https?:|//[a-z]|(?:src|href)=|@import|url\((?!#)", text.split("<script>")[0]
        )
        assert "% of the lower bound of cycles, not measured" in text
    assert "not measurements" in text


@pytest.mark.parametrize("name", ["pointpillars_quantized", "pointpillars_zcu104_vai25"])
def test_layers_not_on_the_dpu_look_different(shared_dir: Path, tmp_path: Path, name: str) -> None:
    """A compiled file names the device, a quantised one leaves it to the kind of op."""
    svg = _draw(shared_dir / "models" / f"{name}.xmodel", tmp_path)[0]
    cpu = [box for box in _boxes(svg) if "cpu" in box.get("class", "").split()]
    kinds = [next(box.iter(f"{SVG}text")).text for box in cpu]
    assert kinds == ["transpose", "PPScatterV2", "transpose"]
