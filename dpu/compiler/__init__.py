"""The compiler from quantised graphs to the compiled form."""
