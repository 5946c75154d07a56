"""TLS on both sides, from the files that the command lines name."""

from __future__ import annotations

import ssl
from pathlib import Path

from streaming.errors import SettingsError

__all__ = ["client_context", "server_context"]


def server_context(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """What a server shows to its listeners; None without a certificate.

    Args:
        cert: the certificate and those of its issuers, PEM.
        key: its private key, if it is not in the same file.

    Raises:
        SettingsError: they cannot be read, or do not belong together.
    """
    if cert is None and key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load(context, cert, key, "--tls-cert", "--tls-key")
    return context


def client_context(
    url: str, ca: Path | None, cert: Path | None = None, key: Path | None = None
) -> ssl.SSLContext | None:
    """How a ``wss://`` sender or ``mqtts://`` broker is checked; None if nothing is encrypted.

    Args:
        ca: certificates to trust instead of the system's, PEM.
        cert, key: what we show in turn.

    Raises:
        SettingsError: they cannot be read, or do not belong together.
    """
    if not url.lower().startswith(("wss:", "mqtts:")):
        if ca is not None:
            raise SettingsError("--ca is for wss:// and mqtts:// addresses; others show nothing.")
        if cert is not None or key is not None:
            raise SettingsError("--mqtt-cert and --mqtt-key are for mqtts:// addresses.")
        return None
    try:
        context = ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror or "no certificate in it"
        raise SettingsError(f"Cannot use the certificates of {ca} ({reason}).") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load(context, cert, key, "--mqtt-cert", "--mqtt-key")
    return context


def _load(
    context: ssl.SSLContext, cert: Path | None, key: Path | None, cert_option: str, key_option: str
) -> None:
    """Give ``context`` a certificate of ours, if there is one. Raises SettingsError."""
    if cert is None:
        if key is not None:
            raise SettingsError(f"{key_option} needs the certificate as well: give {cert_option}.")
        return
    try:
        # An encrypted key would ask for its password on the terminal, which a service has not.
        context.load_cert_chain(cert, key, password=lambda: "")
    except FileNotFoundError:
        missing = next((path for path in (cert, key) if path and not path.exists()), cert)
        raise SettingsError(f"There is no file {missing} for TLS.") from None
    except ssl.SSLError as error:
        reason = error.reason or "unreadable"
        raise SettingsError(f"{cert} and its key cannot be used for TLS ({reason}).") from None
    except OSError as error:
        raise SettingsError(f"Cannot read {cert} or its key ({error.strerror}).") from None
