"""`helm test`: does the ingress answer on every listener, offer TLS, and refuse to be an open relay?

`python submission.py HOST KIND:PORT…`; exit status 1 and a line for each problem. It submits no mail. PATIENCE_SECONDS in the
environment says how long a listener may take to answer.
"""

from __future__ import annotations

import os
import smtplib
import ssl
import sys
import time

PATIENCE_SECONDS = float(os.environ.get("PATIENCE_SECONDS", "60"))


def connect(host: str, kind: str, port: int) -> smtplib.SMTP:
    """A greeted session; the certificate may be anybody's, for this only looks whether there is one."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            if kind == "submissions":
                return smtplib.SMTP_SSL(host, port, timeout=10, context=context)
            session = smtplib.SMTP(host, port, timeout=10)
            if kind == "submission":
                session.starttls(context=context)
        except (OSError, smtplib.SMTPException):
            if time.monotonic() > until:
                raise
            time.sleep(1)
        else:
            return session


def problem(host: str, kind: str, port: int) -> str | None:
    """What is wrong with a listener; None when it is well."""
    try:
        with connect(host, kind, port) as session:
            session.ehlo()
            if kind == "trusted":
                return None  # the client's address decides, so it may well take mail of this pod
            if not session.has_extn("auth"):
                return "AUTH is not offered"
            code, _ = session.mail("probe@example.invalid")
            if code == 250:
                code, text = session.rcpt("probe@example.invalid")
                if code == 250:
                    return f"it takes mail of anybody: {code} {text.decode(errors='replace')}"
    except (OSError, smtplib.SMTPException) as error:
        return (
            f"{error}; are the ingress pods ready? They start when the operator has written the configuration; a trusted "
            "listener waits for its Submitter: kubectl get pods,submitters"
        )
    return None


def main() -> int:
    """Look at every listener."""
    host, *listeners = sys.argv[1:]
    failed = 0
    for listener in listeners:
        kind, port = listener.split(":")
        found = problem(host, kind, int(port))
        print(f"{host} port {port} ({kind}): {found or 'ok'}")
        failed += found is not None
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
