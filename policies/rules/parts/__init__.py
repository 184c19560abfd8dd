"""What rules are composed of: corrections, staleness weights, momenta and the work of the workers."""
