"""The TensorFlow tutorial's two phases on Keras with the TensorFlow backend.

python bench/references/keras_tensorflow.py DATA_DIR [--epochs 10] [--augment]
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from references.keras_tutorial import main

if __name__ == "__main__":
    main("tensorflow", __doc__)
