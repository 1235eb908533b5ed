"""Put a release onto boards by SSH and rsync, and go back to the one before.

    tutelage deploy xilinx@board --model models/mine
    tutelage rollback xilinx@board

On the board everything is below ~/tutelage: `releases/<hash>` has a release with its venv,
`current` and `previous` are symbolic links to releases. A release is the application, the board's
side, the overlay, the model and the Python packages that the board lacks; its name is the hash of
its files, so that a second deployment of the same finds nothing to do. It is copied and tried as
`releases/.<hash>.<token>.partial`; the link is switched last, in one step. Deployments to one board
wait for each other. Where the connection was lost, a later run links the files of such a directory
into one of its own: an rsync that still hangs on the board may write there. The board's own
packages are never touched, and it needs no internet.

SSH and rsync are the system's, with the user's own configuration; host keys are always checked.
"""

from tutelage.host.deploy.deployment import deploy, deploy_one, rollback
from tutelage.host.deploy.dry_run import dry_run
from tutelage.host.deploy.findings import Finding, findings_of
from tutelage.host.deploy.plan import ACCEPTABLE, DeployError, DeployUsageError, Plan, Report
from tutelage.host.deploy.scripts import KEPT, RELEASES

__all__ = ["ACCEPTABLE", "DeployError", "DeployUsageError", "Finding", "KEPT", "Plan", "RELEASES",
           "Report", "deploy", "deploy_one", "dry_run", "findings_of", "rollback"]  # fmt: skip
