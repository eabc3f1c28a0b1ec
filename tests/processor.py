"""What this processor can do."""

import openvino

# without it OpenVINO computes in fp32 whatever it is told
HAS_BF16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
