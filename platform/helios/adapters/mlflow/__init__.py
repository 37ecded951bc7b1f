"""MLflow: the server that `helios up` runs, and what the control plane tells the tracker."""
