"""Imported before anything that needs Keras: loads it without TensorFlow's start-up notes.

TensorFlow's C++ side writes about its build and missing GPUs while it loads, before it reads
TF_CPP_MIN_LOG_LEVEL. What goes wrong comes as a Python exception all the same.
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # its later notes

if "tensorflow" not in sys.modules:
    sys.stderr.flush()
    _terminal, _nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(_nowhere, 2)
    try:
        import keras  # noqa: F401
        import tensorflow  # noqa: F401
    finally:
        os.dup2(_terminal, 2)
        os.close(_terminal)
        os.close(_nowhere)
