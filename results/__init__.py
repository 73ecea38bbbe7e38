"""Numbers that ship with the package as bench.reference: published ones and baselines of the regression gate."""
