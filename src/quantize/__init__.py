"""INT8 by PT2E: where to quantise, calibration of activations, fine-tuning, sensitivity."""

import logging
import warnings

# torchao tells at import which of its CUDA libraries do not load on a machine without CUDA; PT2E needs none.
logging.getLogger("torchao").setLevel(logging.ERROR)
logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", category=FutureWarning, module="copyreg")
