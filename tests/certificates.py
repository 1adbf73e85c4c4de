"""Certificates made by the openssl command."""

from __future__ import annotations

import subprocess
from pathlib import Path


def make_certificate(folder: Path, name: str = "server", *, password: str = "") -> tuple[str, str]:
    """A self-signed certificate for 127.0.0.1, and its key, encrypted if there is a password."""
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    secret = ["-passout", f"pass:{password}"] if password else ["-nodes"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-keyout", str(key), "-out", str(certificate), "-days", "2", *secret]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    return str(certificate), str(key)
