"""Streams that a sender pushes to a relay, instead of the relay fetching them."""
