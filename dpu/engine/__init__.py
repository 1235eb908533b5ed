"""Run a graph: the program of its ops, the reference engine and the fast one.

Importing the package gives the graphs of dpu/xmodel what dpu/ops knows of op types.
"""

from tutelage.dpu.ops import xir
from tutelage.dpu.xmodel.op_types import install

install(xir)
