"""One stream without I/O: what is held of it, who subscribes, and both ends of a connection."""
