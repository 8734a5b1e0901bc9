"""Towers that replay captured graphs: padded works against the uncaptured towers, on the CPU and, where there is one, a GPU."""

import gc
import threading
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from dpad_fast.clip.tower.captured import CapturedTowers
from dpad_fast.clip.tower.gpu_attention import GpuProducts
from dpad_fast.clip.tower.graphs import CudaRecorder, Recorded
from dpad_fast.clip.tower.towers import Towers
from dpad_fast.clip.tower.weights import read_weights
from dpad_fast.testing import missing_cuda
from dpad_fast.testing.graphs import Again

needs_gpu = pytest.mark.skipif(missing_cuda() is not None, reason=missing_cuda() or "")
END = 511
