"""From a source to a hub."""
