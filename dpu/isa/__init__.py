"""The DPU's instruction set: formats, encoding, machine, executor, order, disassembly, cycles."""
