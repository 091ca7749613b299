"""Real faults at whole runs: signals in every phase, kills at random moments, a full disk, damage, two runs at once, a stall.

Runs are processes forked from a server that has imported everything (multiprocessing's), which saves the seconds that imports take.
docs/faults.md lists all faults with their tests, here and elsewhere; `make faults` runs them.
"""

import itertools
import json
import multiprocessing
import os
import pathlib
import re
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from imagenet_jax import checkpoint, cli, evaluate, logs, main, predict
from tests_common import final_state
