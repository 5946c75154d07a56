"""Sound into and out of this machine."""
