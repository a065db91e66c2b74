"""The TensorFlow tutorial's two phases on Keras with the PyTorch backend.

python bench/references/keras_torch.py DATA_DIR [--epochs 10] [--augment]
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from references.keras_tutorial import main

if __name__ == "__main__":
    main("torch", __doc__)
