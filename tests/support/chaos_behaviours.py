"""Receivers that misbehave at one point of the dialogue, for tests of crashes at that point."""

from __future__ import annotations

from postrail.demo.receivers import HANG, Behaviour, Session


class HangsAt(Behaviour):
    """Answers nothing at one point of the dialogue, and tells who got there."""

    def __init__(self, point: str, answer: str = HANG) -> None:
        self.reached: list[str] = []
        setattr(self, point, self._hang)
        self._answer = answer

    def _hang(self, session: Session, *_: object) -> str:
        self.reached += session.recipients or [""]
        return self._answer
