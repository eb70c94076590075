"""`postrail send-test`: submit one message to a running system and say what it answered."""

from __future__ import annotations

import argparse
import email.policy
import smtplib
import ssl
import sys
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path

from postrail.cli.exit_status import EXIT_CONFIGURATION, EXIT_TEMPORARY, EXIT_UNAVAILABLE
from postrail.core.address import domain_of
from postrail.core.config import Config
from postrail.core.ingress_config import ListenerConfig, ListenerKind
from postrail.shell.configuration import DEFAULT_PATH, ConfigurationError, load

TIMEOUT_SECONDS = 60.0
LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # names what a listener is bound to


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "send-test", help="submit a test message and show what happened", description=__doc__
    )
    parser.add_argument("recipient", metavar="RECIPIENT")
    parser.add_argument("--sender", metavar="ADDRESS", help="default: test@ the submitter's first domain")
    parser.add_argument("--config", type=Path, default=DEFAULT_PATH, metavar="FILE", help="default: %(default)s")
    parser.add_argument("--user", help="submit with AUTH as this submitter; default: the trusted listener")
    parser.add_argument("--password-file", type=Path, help="with --user: a file with the password")
    parser.add_argument("--subject", default="Postrail test message")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Submit; 0 when accepted, 1 when refused, 75 when refused for now, 69 when nobody listens."""
    try:
        config = load(args.config)
        listener = _listener(config, needs_auth=args.user is not None)
        sender = args.sender or _default_sender(config, args.user or listener.submitter)
        password = _password(args)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIGURATION
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = sender, args.recipient, args.subject
    message["Date"], message["Message-ID"] = formatdate(), make_msgid(domain=domain_of(sender))
    message.set_content(f"This is a test of the mail system at {config.hostname}.\n")
    host = LOOPBACK_OF.get(listener.address, listener.address)
    try:
        answer = _submit(listener.kind, (host, listener.port), message, args.user, password)
    except smtplib.SMTPResponseException as error:
        text = error.smtp_error.decode(errors="replace") if isinstance(error.smtp_error, bytes) else error.smtp_error
        print(f"refused: {error.smtp_code} {text}", file=sys.stderr)
        return EXIT_TEMPORARY if 400 <= error.smtp_code < 500 else 1
    except smtplib.SMTPRecipientsRefused as error:
        code, text_bytes = next(iter(error.recipients.values()))
        print(f"refused: {code} {text_bytes.decode(errors='replace')}", file=sys.stderr)
        return EXIT_TEMPORARY if 400 <= code < 500 else 1
    except (OSError, smtplib.SMTPException) as error:
        print(
            f"nothing was sent: {host} port {listener.port}: {error}; is it running? postrail up --config {args.config}",
            file=sys.stderr,
        )
        return EXIT_UNAVAILABLE
    print(f"accepted: {answer}")
    identifier = answer.rsplit(" ", 1)[-1]
    print(f"follow it with: postrail trace {identifier} --config {args.config}")
    return 0


def _listener(config: Config, *, needs_auth: bool) -> ListenerConfig:
    for listener in config.ingress.listeners:
        if (listener.kind is not ListenerKind.TRUSTED) == needs_auth:
            return listener
    wanted = "submission or submissions" if needs_auth else "trusted"
    advice = "" if needs_auth else "; with AUTH: --user NAME --password-file FILE"
    raise ConfigurationError(f"ingress.listeners: there is no {wanted} listener to submit to{advice}")


def _default_sender(config: Config, submitter: str) -> str:
    for candidate in config.submitters:
        if candidate.name == submitter:
            named = [domain for domain in candidate.domains if domain != "*" and not domain.startswith(".")]
            if named:
                return f"test@{named[0]}"
    raise ConfigurationError(f"submitters: {submitter!r} has no plain domain to send from; give --sender ADDRESS")


def _password(args: argparse.Namespace) -> str:
    if args.user is None:
        return ""
    if args.password_file is None:
        raise ConfigurationError("--user needs --password-file")
    try:
        return str(args.password_file.read_text(encoding="utf-8").splitlines()[0])
    except (OSError, IndexError) as error:
        raise ConfigurationError(f"{args.password_file}: cannot read a password from it: {error}") from error


def _submit(kind: ListenerKind, server: tuple[str, int], message: EmailMessage, user: str | None, password: str) -> str:
    """Returns the final reply's text; the certificate is not verified, because the name is a loopback address."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    client: smtplib.SMTP
    if kind is ListenerKind.SUBMISSIONS:
        client = smtplib.SMTP_SSL(*server, timeout=TIMEOUT_SECONDS, context=context)
    else:
        client = smtplib.SMTP(*server, timeout=TIMEOUT_SECONDS)
    with client:
        client.ehlo()
        if kind is ListenerKind.SUBMISSION:
            client.starttls(context=context)
            client.ehlo()
        if user is not None:
            client.login(user, password)
        _expect(client.mail(message["From"]))
        _expect(client.rcpt(message["To"]))
        return _expect(client.data(message.as_bytes(policy=email.policy.SMTP)))


def _expect(reply: tuple[int, bytes]) -> str:
    code, text = reply
    if code >= 400:
        raise smtplib.SMTPResponseException(code, text)
    return f"{code} {text.decode(errors='replace')}"
