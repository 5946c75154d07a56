"""Streams through a broker: thin adapters between MQTT topics and the sessions.

Nothing here is imported where no broker is asked for, except the address.
"""
