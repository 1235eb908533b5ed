"""The API of AMD's quantiser vai_q_pytorch, implemented with this project's quantiser.

The modules that scripts import (`pytorch_nndct`) are in host/stand_ins.
"""
