"""What this processor can do, and which extra of its arithmetic is installed."""

from importlib.util import find_spec

import openvino

# without it OpenVINO computes in fp32 whatever it is told
HAS_BF16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
HAS_NNCF = find_spec("nncf") is not None  # int8 on backend openvino
