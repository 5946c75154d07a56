#!/usr/bin/env python3
"""Streams music at 350 bits per second; see ``python server.py --help``."""

from streaming.cli.start import server

if __name__ == "__main__":
    server()
