"""What a model contains: layers, statistics, differences, drawings and pages."""
