"""WebSocket adapters: they move messages between connections and sessions, nothing more.

No compression (tokens do not compress), and pings from the server alone, in one packet with the
tokens if there are any: at 350 bit/s every byte counts.
"""

from streaming.transports.websocket.client import TIMEOUT_S, Connection, check_address, connect

__all__ = ["TIMEOUT_S", "Connection", "check_address", "connect"]
