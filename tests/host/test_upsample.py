"""Upsampling: the student is its .xmodel, bit for bit, and its ONNX file is near."""

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.dpu.compiler.emulation import on_cpu
from tutelage.dpu.engine.reference import load_engine
from tutelage.host.export.onnx_qdq import to_onnx
from tutelage.host.quantise.calibrate import calibrate
from tutelage.host.quantise.student import Student
from tutelage.host.quantise.to_xmodel import to_graph, to_quantised
from tutelage.host.quantise.trace import trace
from tutelage.host.quantise.walker import UnsupportedOp

SHAPE = (3, 8, 12)


class Decoder(nn.Module):
    """A map that is made smaller, larger again, and joined with itself."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(3, 8, 3, 2, 1), nn.Upsample(**options)
        self.out = nn.Conv2d(11, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.down(x))
        return self.out(torch.cat([x, self.up(y)], 1))


def test_the_student_is_its_xmodel():
    torch.manual_seed(0)
    images = torch.rand(16, *SHAPE) * 2 - 1
    student = Student(Decoder(scale_factor=2).eval(), SHAPE)
    calibrate(student, images)
    wanted = student.eval()(images).detach().numpy()
    quantised = to_quantised(student, "decoder")
    assert not on_cpu(quantised)
    for engine in ("fast", "reference"):
        model = load_engine(to_graph(student, "decoder"), engine)
        found = model.run(images.permute(0, 2, 3, 1).numpy())
        np.testing.assert_array_equal(found.transpose(0, 3, 1, 2), wanted)
    session = onnxruntime.InferenceSession(to_onnx(quantised))
    (found,) = session.run(None, {"images": images.numpy()})
    step = 2.0 ** -student.fix_points().activations["out"]
    assert abs(found - wanted).max() <= 2 * step


@pytest.mark.parametrize(
    ("options", "advice"),
    [({"scale_factor": 2, "mode": "bilinear"}, "nearest"), ({"scale_factor": 2.1}, "whole")],
)
def test_what_the_dpu_does_not_repeat(options, advice):
    with pytest.raises(UnsupportedOp, match=advice):
        trace(Decoder(**options), SHAPE)
