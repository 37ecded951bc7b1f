"""What every cell on AWS has besides what its YAML says; the program declares it, the prices count it."""

SYSTEM_POOL = "system"
SYSTEM_INSTANCE = "m7i.large"
SYSTEM_NODES = 2
"""Small machines for CoreDNS and KubeRay: GPU nodes are tainted, and too dear for either."""
SYSTEM_DISK_GIB = 50
GPU_DISK_GIB = 200
"""Root disk of a pool's node, for images; data goes to the instance's own NVMe and the bucket."""
POOL_LABEL = "helios.dev/pool"
