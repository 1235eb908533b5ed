"""Deployment of releases to boards by SSH and rsync, and rollback to the previous one.

    tutelage deploy xilinx@board --model models/mine
    tutelage rollback xilinx@board

On the board everything is below ~/tutelage: `releases/<hash>` is a release with its venv, `current`
and `previous` are symbolic links to releases. A release has the application, the board's side, the
overlay, the model and the Python packages that the board lacks; its name is the hash of its files,
so that deploying the same release again does nothing. It is copied to
`releases/.<hash>.<token>.partial` and tested there; the link is switched last, atomically.
Deployments to the same board wait for each other. After a lost connection the next run links the
files of the incomplete directory into a new one, since an rsync that is still running on the board
may write to the old one. The board's own packages are never changed, and it needs no internet
access.

SSH and rsync are those of the system, with the user's configuration; host keys are always checked.
"""

from tutelage.host.deploy.deployment import deploy, deploy_one, rollback
from tutelage.host.deploy.dry_run import dry_run
from tutelage.host.deploy.findings import Finding, findings_of
from tutelage.host.deploy.plan import ACCEPTABLE, DeployError, DeployUsageError, Plan, Report
from tutelage.host.deploy.scripts import KEPT, RELEASES

__all__ = ["ACCEPTABLE", "DeployError", "DeployUsageError", "Finding", "KEPT", "Plan", "RELEASES",
           "Report", "deploy", "deploy_one", "dry_run", "findings_of", "rollback"]  # fmt: skip
