"""What asyncio and the system lack."""
