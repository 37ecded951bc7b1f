"""Arrive until full: requests are placed one after the other on a cluster and stay, until hardly any more fits.

What differs between policies is only which node, and which of its devices, each request goes to. The share of the
cluster's GPUs that is allocated in the end says how well a policy avoids fragments. The experiment is that of Weng et
al., "Beware of Fragmentation" (USENIX ATC 2023), on the trace published with it (Alibaba openb). The paper's artifact,
to which the policies' modules refer, is hkust-adsl/kubernetes-scheduler-simulator on GitHub.
"""

from helios.simulator.packing.inflation import Inflation, inflate
from helios.simulator.packing.nodes import Nodes, Request
from helios.simulator.packing.openb import read_nodes, read_requests
from helios.simulator.packing.policies import POLICIES, policy
from helios.simulator.packing.workload import arrivals, typical

__all__ = [
    "POLICIES",
    "Inflation",
    "Nodes",
    "Request",
    "arrivals",
    "inflate",
    "policy",
    "read_nodes",
    "read_requests",
    "typical",
]
