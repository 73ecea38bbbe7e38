"""Numbers that ship with the package as bench.shipped: published ones and baselines of the regression gate."""
