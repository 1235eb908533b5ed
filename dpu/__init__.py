"""The accelerator in pure software: .xmodel files, exact arithmetic, emulated vart and xir."""
