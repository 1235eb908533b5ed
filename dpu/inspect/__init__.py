"""Contents of a model: layers, statistics, differences, drawings and pages."""
