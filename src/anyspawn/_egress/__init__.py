"""The network by name: which hosts a sandboxed program may reach, and the proxy that it reaches
them by.
"""

from anyspawn._egress._settings import Egress, holder_id

__all__ = ["Egress", "holder_id"]
