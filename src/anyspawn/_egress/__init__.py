"""The network by name: the hosts that a sandboxed program can reach, and the proxy to them."""

from anyspawn._egress._settings import Egress, holder_id

__all__ = ["Egress", "holder_id"]
