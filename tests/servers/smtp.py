#!/usr/bin/env python3
"""Mail servers on 127.0.0.1 that keep what they take in a maildir: one without TLS, one that wants
STARTTLS, one with TLS from the start; each wants a user and a password.

    smtp.py MAILDIR CERTIFICATE KEY USER PASSWORD PLAIN_PORT STARTTLS_PORT SMTPS_PORT
"""
import ssl
import sys
import threading

from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Mailbox
from aiosmtpd.smtp import AuthResult

maildir, certificate, key, user, password, *ports = sys.argv[1:]


def authenticate(server, session, envelope, mechanism, data):
    is_known = (data.login, data.password) == (user.encode(), password.encode())
    return AuthResult(success=is_known, handled=False)


class Handler(Mailbox):
    """Knows everybody but `nobody@…`, and is busy for `busy@…`."""

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("nobody@"):
            return "550 no such user here"
        if address.startswith("busy@"):
            return "451 try again later"
        envelope.rcpt_tos.append(address)
        return "250 OK"


tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
tls.load_cert_chain(certificate, key)
handler = Handler(maildir)
common = {"hostname": "127.0.0.1", "authenticator": authenticate, "auth_required": True}
for port, how in zip(
    ports,
    [
        {"auth_require_tls": False},
        {"tls_context": tls, "require_starttls": True},
        {"ssl_context": tls, "auth_require_tls": False},
    ],
):
    Controller(handler, port=int(port), **common, **how).start()
threading.Event().wait()
