"""What every cell on AWS has besides what its YAML says; the program declares it, the prices count it."""

SYSTEM_POOL = "system"
SYSTEM_INSTANCE = "m7i.large"
SYSTEM_NODES = 2
"""Small machines for CoreDNS and KubeRay: GPU nodes are tainted, and too dear for either."""
SYSTEM_DISK_GIB = 50
GPU_DISK_GIB = 200
"""Root disk of a pool's node, for images; data goes to the instance's own NVMe and the bucket."""
ADDRESSES_A_NODE = 32
"""Of its subnet, for a node and its pods: the VPC network add-on gives each pod one."""
MAX_CELL_NAME = 48
"""An IAM role's name has 64 characters, of which ours and Pulumi's suffixes take up to 16."""
POOL_LABEL = "helios.dev/pool"
