"""Servers on this host, and rules that allow them."""

from __future__ import annotations

import subprocess

import pytest

from anyspawn import Egress
from hosts import Names, serving

OPENSSL = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
OPENSSL += ["-nodes", "-keyout", "key.pem", "-out", "ca.pem", "-days", "2"]


@pytest.fixture
def web():
    with serving() as server:
        yield server


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A certificate for web.test with its key; it is its own authority."""
    folder = tmp_path_factory.mktemp("certificate")
    subprocess.run(
        [*OPENSSL, "-addext", "subjectAltName=DNS:web.test", "-subj", "/CN=test"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    (folder / "both.pem").write_bytes(
        (folder / "key.pem").read_bytes() + (folder / "ca.pem").read_bytes()
    )
    (folder / "ca.pem").chmod(0o644)
    folder.chmod(0o755)
    return folder


@pytest.fixture
def secure_web(certificate):
    with serving("secure", tls=certificate / "both.pem") as server:
        yield server


@pytest.fixture
def names():
    return Names()


@pytest.fixture
def egress(names):
    """Make settings that allow names below ``test`` with any port."""

    def make(*allow, private=("*.test:*",)):
        return Egress(allow=allow, private=private, resolve=names)

    return make
