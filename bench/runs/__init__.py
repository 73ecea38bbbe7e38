"""From a request to finished runs: plan, facts, reuse, checkpoints, launchers."""
