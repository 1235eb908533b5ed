"""The workstation side: training, quantising, export, deployment, measurement and report."""

import tutelage.core  # noqa: F401  (sets OpenCV's limits, before anything imports it)
