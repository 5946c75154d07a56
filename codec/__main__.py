"""``python -m codec``: another name of the command ``muc``."""

if __name__ == "__main__":
    from streaming.cli.start import muc

    muc()
