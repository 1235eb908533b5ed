"""The .xmodel file: schema, reading and writing, graph, attributes, op definitions."""
