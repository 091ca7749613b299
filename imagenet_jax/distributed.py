"""Several processes as one run: how they find each other, agree on what must be the same, and stop at the same step.

Nothing here costs anything in one process. What every process must do alike it decides from what process 0 said, since the files
that one host sees may be older than another's.
"""

import argparse
import collections
import contextlib
import hashlib
import json
import os
import pathlib
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding

from imagenet_jax import runtime, sharding
from imagenet_jax.errors import RunError, UserError
