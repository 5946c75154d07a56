#!/usr/bin/env python3
"""Listens to music at 350 bits per second; see ``python client.py --help``."""

from streaming.cli.start import client

if __name__ == "__main__":
    client()
