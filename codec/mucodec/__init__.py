"""The published MuCodec model (0.35 kbps), exact, in our own code."""
