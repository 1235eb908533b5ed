"""From a quantised graph to the compiled form."""
