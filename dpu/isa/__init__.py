"""The DPU's instructions: formats, encoding, machine, executor, order, disassembly, cycles."""
