"""Submits mail from a pod of the cluster, and says what got its 250. Run there by itself: standard library only.

`python injector.py SETTINGS`, in JSON: host, port, kind (submission or submissions), username, password, sender, recipients
(domains), prefix, and count, per_second, sessions, most_recipients, sizes_bytes. It ends after `count` messages were offered,
or when /tmp/stop exists. A message is offered once and never again. Each line of its output is a JSON list: ["offered", id,
recipients, SHA-256 of the body], ["accepted", id, recipients], ["refused", id, reply], ["broken", id, why], and at last ["done"].
"""

from __future__ import annotations

import hashlib
import json
import random
import smtplib
import ssl
import sys
import threading
import time
from pathlib import Path
from typing import Any

STOP = Path("/tmp/stop")
FIELD = "X-Ledger-Id"
TIMEOUT_SECONDS = 30.0


class Injector:
    """Several sessions that share one pace and one count."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._number = 0
        self._begun = time.monotonic()

    def run(self) -> None:
        """Submit until all is offered, or somebody says stop."""
        sessions = [threading.Thread(target=self._work) for _ in range(self.settings["sessions"])]
        for session in sessions:
            session.start()
        for session in sessions:
            session.join()
        self._say("done")

    def _say(self, *words: object) -> None:
        with self._lock:
            print(json.dumps(words), flush=True)

    def _next(self) -> int:
        """The number of the next message, at its time; 0 when there is none."""
        with self._lock:
            if self._number >= self.settings["count"]:
                return 0
            self._number += 1
            number = self._number
        due = self._begun + number / self.settings["per_second"]
        while time.monotonic() < due:
            if STOP.exists():
                return 0
            time.sleep(min(0.2, max(0.0, due - time.monotonic())))
        return 0 if STOP.exists() else number

    def _work(self) -> None:
        session: smtplib.SMTP | None = None
        while number := self._next():
            while session is None and not STOP.exists():
                session = self._open()
            if session is None:
                return
            session = self._offer(session, number)
        if session is not None:
            session.close()

    def _open(self) -> smtplib.SMTP | None:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        host, port = self.settings["host"], self.settings["port"]
        session: smtplib.SMTP | None = None
        try:
            if self.settings["kind"] == "submissions":
                session = smtplib.SMTP_SSL(host, port, timeout=TIMEOUT_SECONDS, context=context)
            else:
                session = smtplib.SMTP(host, port, timeout=TIMEOUT_SECONDS)
                session.starttls(context=context)
            session.login(self.settings["username"], self.settings["password"])
        except (OSError, smtplib.SMTPException) as error:
            print(f"no session: {error!r}", file=sys.stderr, flush=True)
            if session is not None:
                session.close()
            time.sleep(0.5)
            return None
        return session

    def _offer(self, session: smtplib.SMTP, number: int) -> smtplib.SMTP | None:
        """Offer one message; the session, or None when it is of no more use."""
        ledger_id = f"{self.settings['prefix']}-{number}"
        domains = random.choices(self.settings["recipients"], k=random.randint(1, self.settings["most_recipients"]))
        recipients = [f"{ledger_id}.{index}@{domain}" for index, domain in enumerate(domains)]
        body = text(random.choice(self.settings["sizes_bytes"]))
        head = {"From": self.settings["sender"], "To": ", ".join(recipients), "Subject": ledger_id, FIELD: ledger_id}
        content = "".join(f"{name}: {value}\r\n" for name, value in head.items()).encode() + b"\r\n" + body
        self._say("offered", ledger_id, recipients, hashlib.sha256(body).hexdigest())
        try:
            refused = session.sendmail(self.settings["sender"], recipients, content)
        except smtplib.SMTPServerDisconnected as error:
            self._say("broken", ledger_id, str(error))
        except smtplib.SMTPResponseException as error:
            self._say("refused", ledger_id, f"{error.smtp_code} {error.smtp_error!r}")
            time.sleep(0.2)
            if error.smtp_code != 421:
                return session
        except (OSError, smtplib.SMTPException) as error:
            self._say("broken", ledger_id, repr(error))
        else:
            self._say("accepted", ledger_id, [one for one in recipients if one not in refused])
            return session
        session.close()
        return None


def text(size_bytes: int) -> bytes:
    """Lines of random text, some with leading dots."""
    letters = random.randbytes(size_bytes // 2).hex()
    lines = [letters[start : start + 70] for start in range(0, len(letters), 70)]
    lines[::7] = [f".{line}" for line in lines[::7]]
    return ("\r\n".join([*lines, "end"]) + "\r\n").encode()


if __name__ == "__main__":
    Injector(json.loads(sys.argv[1])).run()
