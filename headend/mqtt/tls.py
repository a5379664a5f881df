"""The TLS side of a connection to a broker."""

from __future__ import annotations

import ssl

from headend.errors import LineDown
from headend.mqtt.settings import BrokerSettings

__all__ = ["reason_of", "tls_context"]


def tls_context(settings: BrokerSettings) -> ssl.SSLContext:
    """The context of the connection; `LineDown` naming the file that can't be used."""
    where = f"broker {settings.name}"
    try:
        context = ssl.create_default_context(cafile=str(settings.ca) if settings.ca is not None else None)
    except (OSError, ssl.SSLError) as error:
        raise LineDown(
            f"the CA file can't be used: {reason_of(error)}", where=where, remedy="name a PEM file"
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.cert is not None:
        try:
            context.load_cert_chain(str(settings.cert), str(settings.key) if settings.key is not None else None)
        except (OSError, ssl.SSLError) as error:
            what = f"certificate or key can't be used: {reason_of(error)}"
            raise LineDown(what, where=where, remedy="name PEM files that belong together") from None
    return context


def reason_of(error: Exception) -> str:
    """Why a connection can't be made, in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the broker's certificate is not trusted: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
