"""How messages travel: WebSocket, MQTT, push, one-way links."""
