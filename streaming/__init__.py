"""Time: windows at work, packets, sessions, transports, buffers, sources and sinks."""
