"""The workstation side: training, quantising, export, deployment, measurement and report."""
