"""Numbers that ship with the package as bench.shipped: published ones, errors of conformance, the gate's baselines."""
