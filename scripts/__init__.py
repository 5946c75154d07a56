"""What `make` runs: the set-up script and the demonstration."""
