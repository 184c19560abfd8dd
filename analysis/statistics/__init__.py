"""Statistics of histories: means over seeds, targets, paired differences, comparisons of convergence."""
