"""Engines that run a graph: programs, the reference engine, the fast one and `instructions`.

Importing the package makes the op types of dpu/ops available to the graphs of dpu/xmodel.
"""

from tutelage.dpu.ops import xir
from tutelage.dpu.xmodel.op_types import install

install(xir)
