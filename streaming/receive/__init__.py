"""From messages to sound when it is due."""
