"""Pages, figures and health over HTTP: the sender's own, and the one on the listener's machine."""
