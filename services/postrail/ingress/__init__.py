"""Submission: takes mail in over SMTP, judges it, and stores it in the log before it says 250."""
