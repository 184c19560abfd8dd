"""Theory: expected runtimes, staleness and errors, to compare simulations with."""
