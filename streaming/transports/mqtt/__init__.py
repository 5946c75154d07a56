"""Streams through a broker: thin adapters between MQTT topics and the sessions.

aiomqtt is imported where a broker is asked for, and not before.
"""
