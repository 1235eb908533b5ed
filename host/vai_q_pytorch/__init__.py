"""What scripts for AMD's quantiser vai_q_pytorch ask for, done by this project's quantiser.

The names that they import (`pytorch_nndct`) are in host/stand_ins.
"""
