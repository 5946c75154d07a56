"""Streams over links that carry bytes one way and nothing else: serial lines, radio, UDP.

The layout of frames is in docs/radio.md. What is said on a link is decided by plain objects
(``sender``, ``receiver``); ``publisher`` and ``connection`` move it between hub or session and a
port, as the adapters of WebSocket and MQTT do.
"""
