"""WebSocket adapters: they move messages between connections and sessions, nothing more.

No compression (tokens do not compress), and keepalive pings once a minute from the server alone:
at 350 bit/s every byte counts. A listener that does not answer a ping in time is disconnected.
"""

from streaming.websocket.client import Connection, connect
from streaming.websocket.server import WebSocketServer

__all__ = ["Connection", "WebSocketServer", "connect"]
